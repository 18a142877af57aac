/// A file or values that do not keep the contract; the message says where and how.
public struct FormatError: Error, Equatable, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

/// One JSON text (RFC 8259).
///
/// Read here because Foundation's decoder takes 5000.0 for a whole number and half a surrogate pair for text, which the contract forbids, and
/// is not the same code on every system. Where a key comes twice, the last one counts.
enum Json: Equatable {
  case null
  case bool(Bool)

  /// As it is written: what it becomes depends on who asks.
  case number(literal: String)
  case string(String)
  case array([Json])

  /// In the order of the file.
  case object([(String, Json)])

  static func number(_ value: Int) -> Json { .number(literal: "\(value)") }

  /// The shortest text that gives the value back; what is not finite is refused when it is written.
  static func number(_ value: Double) -> Json { .number(literal: "\(value)") }

  init(_ text: String) throws {
    var parser = Parser(bytes: Array(text.utf8))
    self = try parser.whole()
  }

  static func == (one: Json, other: Json) -> Bool {
    switch (one, other) {
    case (.null, .null): true
    case (.bool(let one), .bool(let other)): one == other
    case (.number(let one), .number(let other)): Double(one) == Double(other)
    case (.string(let one), .string(let other)): one == other
    case (.array(let one), .array(let other)): one == other
    case (.object(let one), .object(let other)): one.count == other.count && zip(one, other).allSatisfy(==)
    default: false
    }
  }

  func text() throws -> String {
    switch self {
    case .null: return "null"
    case .bool(let value): return "\(value)"
    case .number(let literal):
      guard Double(literal)?.isFinite == true else { throw FormatError("JSON has no number for \(literal)") }
      return literal
    case .string(let value): return Self.quoted(value)
    case .array(let values): return try "[" + values.map { try $0.text() }.joined(separator: ",") + "]"
    case .object(let members): return try "{" + members.map { try Self.quoted($0) + ":" + $1.text() }.joined(separator: ",") + "}"
    }
  }

  private static func quoted(_ value: String) -> String {
    let escaped = value.unicodeScalars.map { scalar in
      switch scalar {
      case "\"", "\\": "\\\(scalar)"
      case "\0"..<" ": "\\u" + String(0x10000 + scalar.value, radix: 16).dropFirst()
      default: String(scalar)
      }
    }
    return "\"" + escaped.joined() + "\""
  }
}

/// Reads bytes of UTF-8, which Swift's strings always are, to the end.
private struct Parser {
  let bytes: [UInt8]
  private var at = 0
  private var depth = 0
  private static let maxDepth = 100

  init(bytes: [UInt8]) { self.bytes = bytes }

  mutating func whole() throws -> Json {
    let value = try value()
    guard at == bytes.count else { throw failure("more after the end") }
    return value
  }

  /// One value and the space around it.
  private mutating func value() throws -> Json {
    space()
    let value: Json =
      switch try peek() {
      case UInt8(ascii: "{"): try nested { .object(try $0.members()) }
      case UInt8(ascii: "["): try nested { .array(try $0.elements()) }
      case UInt8(ascii: "\""): .string(try string())
      case UInt8(ascii: "t"): try word("true", .bool(true))
      case UInt8(ascii: "f"): try word("false", .bool(false))
      case UInt8(ascii: "n"): try word("null", .null)
      default: .number(literal: try number())
      }
    space()
    return value
  }

  private mutating func nested(_ read: (inout Parser) throws -> Json) throws -> Json {
    depth += 1
    guard depth <= Self.maxDepth else { throw failure("nested too deeply") }
    at += 1
    defer { depth -= 1 }
    return try read(&self)
  }

  private mutating func members() throws -> [(String, Json)] {
    var members: [(String, Json)] = []
    space()
    if taken("}") { return members }
    repeat {
      space()
      guard try peek() == UInt8(ascii: "\"") else { throw failure("a name expected") }
      let name = try string()
      space()
      guard taken(":") else { throw failure("':' expected") }
      let member = try value()
      members.removeAll { $0.0 == name }
      members.append((name, member))
    } while taken(",")
    guard taken("}") else { throw failure("',' or '}' expected") }
    return members
  }

  private mutating func elements() throws -> [Json] {
    var elements: [Json] = []
    space()
    if taken("]") { return elements }
    repeat { elements.append(try value()) } while taken(",")
    guard taken("]") else { throw failure("',' or ']' expected") }
    return elements
  }

  private mutating func string() throws -> String {
    var string = ""
    at += 1
    while true {
      let start = at
      while try peek() >= 0x20, bytes[at] != UInt8(ascii: "\""), bytes[at] != UInt8(ascii: "\\") { at += 1 }
      string += String(decoding: bytes[start..<at], as: UTF8.self)
      switch bytes[at] {
      case UInt8(ascii: "\""):
        at += 1
        return string
      case UInt8(ascii: "\\"):
        at += 1
        string.unicodeScalars.append(try escape())
      default:
        throw failure("a control character in a string")
      }
    }
  }

  private mutating func escape() throws -> Unicode.Scalar {
    let character = try peek()
    at += 1
    switch character {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(character)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{c}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"): return try codePoint()
    default: throw failure("an unknown escape")
    }
  }

  /// Of `\uXXXX`, or of two that are a pair.
  private mutating func codePoint() throws -> Unicode.Scalar {
    let first = try codeUnit()
    if let scalar = Unicode.Scalar(first) { return scalar }
    guard UTF16.isLeadSurrogate(first), taken("\\"), taken("u") else { throw failure("half a surrogate pair") }
    let second = try codeUnit()
    guard UTF16.isTrailSurrogate(second) else { throw failure("half a surrogate pair") }
    return Unicode.Scalar(0x10000 + (UInt32(first) - 0xd800) << 10 + (UInt32(second) - 0xdc00))!
  }

  private mutating func codeUnit() throws -> UInt16 {
    let digits = bytes[at..<min(at + 4, bytes.count)]
    guard digits.count == 4, digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }) else {
      throw failure("four hexadecimal digits expected")
    }
    at += 4
    return UInt16(String(decoding: digits, as: UTF8.self), radix: 16)!
  }

  private mutating func number() throws -> String {
    let start = at
    _ = taken("-")
    if !taken("0") { try digits("a value expected") }
    if taken(".") { try digits("a digit expected") }
    if taken("e") || taken("E") {
      _ = taken("+") || taken("-")
      try digits("a digit expected")
    }
    return String(decoding: bytes[start..<at], as: UTF8.self)
  }

  private mutating func digits(_ what: String) throws {
    let start = at
    while at < bytes.count, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(bytes[at]) { at += 1 }
    guard at > start else { throw failure(what) }
  }

  private mutating func word(_ word: String, _ value: Json) throws -> Json {
    guard bytes[at...].starts(with: word.utf8) else { throw failure("a value expected") }
    at += word.utf8.count
    return value
  }

  private mutating func space() {
    while at < bytes.count, [0x20, 0x09, 0x0a, 0x0d].contains(bytes[at]) { at += 1 }
  }

  private func peek() throws -> UInt8 {
    guard at < bytes.count else { throw failure("it ends too early") }
    return bytes[at]
  }

  private mutating func taken(_ character: Unicode.Scalar) -> Bool {
    guard at < bytes.count, bytes[at] == UInt8(ascii: character) else { return false }
    at += 1
    return true
  }

  private func failure(_ what: String) -> FormatError { FormatError("no JSON: \(what) at byte \(min(at, bytes.count) + 1)") }
}

/// An object of which every field must be asked for: ``close()`` complains of the others.
struct JsonFields {
  private let fields: [String: Json]
  private let path: String
  private var asked: Set<String> = []

  init(_ value: Json, path: String = "") throws {
    guard case .object(let members) = value else { throw FormatError("\(path.isEmpty ? "the file" : path): an object expected") }
    fields = Dictionary(uniqueKeysWithValues: members)
    self.path = path
  }

  func has(_ name: String) -> Bool { fields[name] != nil }

  mutating func isNull(_ name: String) throws -> Bool { try get(name) == .null }

  mutating func string(_ name: String) throws -> String {
    guard case .string(let value) = try get(name) else { throw failure(name, "a string expected") }
    return value
  }

  /// One of an enumeration's words.
  mutating func word<Word: RawRepresentable & CaseIterable>(_ name: String, as: Word.Type = Word.self) throws -> Word
  where Word.RawValue == String {
    let text = try string(name)
    guard let word = Word(rawValue: text) else {
      throw failure(name, "one of \(Word.allCases.map(\.rawValue).joined(separator: ", ")) expected, not \(text)")
    }
    return word
  }

  mutating func int(_ name: String) throws -> Int { try whole(try get(name), name) }

  mutating func double(_ name: String) throws -> Double { try real(try get(name), name) }

  mutating func ints(_ name: String) throws -> [Int] { try list(name).map { try whole($0, name) } }

  mutating func doubles(_ name: String) throws -> [Double] { try list(name).map { try real($0, name) } }

  mutating func intLists(_ name: String) throws -> [[Int]] {
    try list(name).map {
      guard case .array(let row) = $0 else { throw failure(name, "lists expected") }
      return try row.map { try whole($0, name) }
    }
  }

  /// Axes of a tensor: nil where any length goes.
  mutating func shape(_ name: String) throws -> [Int?] {
    try list(name).map {
      if $0 == .null { return nil }
      let length = try whole($0, name)
      guard (1...1 << 20).contains(length) else { throw failure(name, "axes of 1 to \(1 << 20) expected") }
      return length
    }
  }

  mutating func fields<T>(_ name: String, _ read: (inout JsonFields) throws -> T) throws -> T {
    try Self.read(try get(name), at: inside(name), read)
  }

  mutating func fieldsList<T>(_ name: String, _ read: (inout JsonFields) throws -> T) throws -> [T] {
    try list(name).enumerated().map { try Self.read($1, at: "\(inside(name))[\($0)]", read) }
  }

  /// - Throws: ``FormatError``: a field was not asked for.
  func close() throws {
    if let unknown = fields.keys.filter({ !asked.contains($0) }).min() { throw failure(unknown, "not a field of schema \(schema)") }
  }

  func failure(_ name: String, _ what: String) -> FormatError { FormatError("\(inside(name)): \(what)") }

  static func read<T>(_ value: Json, at path: String = "", _ read: (inout JsonFields) throws -> T) throws -> T {
    var fields = try JsonFields(value, path: path)
    let result = try read(&fields)
    try fields.close()
    return result
  }

  private func inside(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }

  private mutating func get(_ name: String) throws -> Json {
    asked.insert(name)
    guard let value = fields[name] else { throw failure(name, "missing") }
    return value
  }

  private mutating func list(_ name: String) throws -> [Json] {
    guard case .array(let values) = try get(name) else { throw failure(name, "a list expected") }
    return values
  }

  private func whole(_ value: Json, _ name: String) throws -> Int {
    guard case .number(let literal) = value else { throw failure(name, "a number expected") }
    guard let number = Int(literal) else { throw failure(name, "a whole number expected, not \(literal)") }
    return number
  }

  private func real(_ value: Json, _ name: String) throws -> Double {
    guard case .number(let literal) = value, let number = Double(literal) else { throw failure(name, "a number expected") }
    return number
  }
}
