@_exported import CoreTypes

public final class CGImage {
  public var width: Int { fatalError() }  // objc CGImageGetWidth(1)
  public var height: Int { fatalError() }  // objc CGImageGetHeight(1)
}

public final class CGColorSpace {
  public static let sRGB: CFString = ""  // objc kCGColorSpaceSRGB
  public init?(name: CFString) { fatalError() }  // objc CGColorSpaceCreateWithName(1)
}

public enum CGImageAlphaInfo: UInt32 {
  case noneSkipFirst = 6  // objc CGImageAlphaInfo/kCGImageAlphaNoneSkipFirst
}

public struct CGBitmapInfo: OptionSet, Sendable {
  public let rawValue: UInt32  // swift
  public init(rawValue: UInt32) { self.rawValue = rawValue }  // swift
  public static let byteOrder32Little = CGBitmapInfo(rawValue: 2 << 12)  // objc CGBitmapInfo/kCGBitmapByteOrder32Little
}

public final class CGContext {
  public init?(data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int, space: CGColorSpace, bitmapInfo: UInt32) { fatalError() }  // objc CGBitmapContextCreate(7)
  public func draw(_ image: CGImage, in rect: CGRect) { fatalError() }  // objc CGContextDrawImage(3)
}
