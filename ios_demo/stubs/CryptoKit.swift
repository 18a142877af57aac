@_exported import Foundation

public struct SHA256Digest: Sequence {
  public func makeIterator() -> [UInt8].Iterator { fatalError() }
}

public enum SHA256 {
  public typealias Digest = SHA256Digest
  public static func hash<D: DataProtocol>(data: D) -> SHA256Digest { fatalError() }
}
