import Foundation
import Testing

@testable import FaceCore

/// Vectors of `tests/golden`, whose README says what is in them.
struct Golden {
  let value: Json

  static func read(_ name: String, file: StaticString = #filePath) throws -> Golden {
    let project = (0..<5).reduce(URL(fileURLWithPath: "\(file)")) { url, _ in url.deletingLastPathComponent() }
    return try parse(String(contentsOf: project.appendingPathComponent("tests/golden/\(name)"), encoding: .utf8))
  }

  static func parse(_ text: String) throws -> Golden { Golden(value: try Json(text)) }

  subscript(name: String) -> Golden { find(name)! }

  func find(_ name: String) -> Golden? {
    guard case .object(let members) = value else { return nil }
    return members.first { $0.0 == name }.map { Golden(value: $0.1) }
  }

  var cases: [Golden] { self["cases"].list }

  var list: [Golden] {
    guard case .array(let values) = value else { fatalError("no list") }
    return values.map(Golden.init)
  }

  var string: String {
    guard case .string(let text) = value else { fatalError("no string") }
    return text
  }

  /// "NaN", "Infinity" and "-Infinity" are strings.
  var double: Double {
    if case .number(let literal) = value { return Double(literal)! }
    return ["NaN": .nan, "Infinity": .infinity, "-Infinity": -.infinity][string]!
  }

  var bool: Bool { value == .bool(true) }
  var int: Int { Int(double) }
  var float: Float { Float(double) }
  var ints: [Int] { list.map(\.int) }
  var doubles: [Double] { list.map(\.double) }
  var floats: [Float] { list.map(\.float) }

  var thresholds: Thresholds {
    var thresholds = Thresholds()
    thresholds.score = self["score"].double
    thresholds.nmsIou = self["nms_iou"].double
    thresholds.topK = self["top_k"].int
    thresholds.keep = self["keep"].int
    return thresholds
  }
}

/// To `1e-4 * max(1, |expected|)`.
func isClose(_ actual: [Float], _ expected: [Float]) -> Bool {
  actual.count == expected.count && zip(actual, expected).allSatisfy(isClose)
}

private func isClose(_ actual: Float, _ expected: Float) -> Bool {
  if actual == expected || (actual.isNaN && expected.isNaN) { return true }
  return abs(actual - expected) <= 1e-4 * max(1, abs(expected))
}
