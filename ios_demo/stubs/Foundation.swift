// What Foundation and Dispatch have on Apple's systems and lack on Linux; compiled as a part of the app.
import Dispatch
import Foundation

typealias DispatchSerialQueue = DispatchQueue

extension DispatchQueue: @retroactive Executor {}
extension DispatchQueue: @retroactive SerialExecutor {
  public func enqueue(_ job: consuming ExecutorJob) { fatalError() }
  public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}

extension String {
  /// As the real one takes it: texts and whole numbers. Others have to be made text first.
  struct LocalizationValue: ExpressibleByStringInterpolation {
    struct StringInterpolation: StringInterpolationProtocol {
      init(literalCapacity: Int, interpolationCount: Int) {}
      mutating func appendLiteral(_ literal: String) {}
      mutating func appendInterpolation(_ text: String) {}
      mutating func appendInterpolation(_ number: Int) {}
    }
    init(stringLiteral value: String) {}
    init(stringInterpolation: StringInterpolation) {}
  }

  init(localized key: LocalizationValue) { fatalError() }
}

final class NSKeyValueObservation {}

struct NSKeyValueObservingOptions: OptionSet, Sendable {
  let rawValue: UInt
  static let new = Self(rawValue: 1)
  static let initial = Self(rawValue: 4)
}

struct NSKeyValueObservedChange<Value> {}

extension NSObjectProtocol {
  func observe<Value>(
    _ keyPath: KeyPath<Self, Value>, options: NSKeyValueObservingOptions,
    changeHandler: @escaping @Sendable (Self, NSKeyValueObservedChange<Value>) -> Void
  ) -> NSKeyValueObservation { fatalError() }
}

extension NotificationCenter {
  func notifications(named name: Notification.Name) -> AsyncStream<Notification> { fatalError() }
}

/// A C enumeration on Linux, a number on Apple's systems.
let RUSAGE_SELF: Int32 = 0
