@_exported import CoreTypes

public final class CVPixelBuffer {}
public typealias CVReturn = Int32
public typealias OSType = UInt32

public struct CVPixelBufferLockFlags: OptionSet, Sendable {
  public let rawValue: UInt64  // swift
  public init(rawValue: UInt64) { self.rawValue = rawValue }  // swift
  public static let readOnly = CVPixelBufferLockFlags(rawValue: 1)  // objc CVPixelBufferLockFlags/kCVPixelBufferLock_ReadOnly
}

public let kCVReturnSuccess: CVReturn = 0  // objc kCVReturnSuccess
public let kCVPixelFormatType_32BGRA: OSType = 0  // objc kCVPixelFormatType_32BGRA
public let kCVPixelBufferPixelFormatTypeKey: CFString = ""  // objc kCVPixelBufferPixelFormatTypeKey
public let kCVPixelBufferIOSurfacePropertiesKey: CFString = ""  // objc kCVPixelBufferIOSurfacePropertiesKey

public func CVPixelBufferCreate(_ allocator: CFAllocator?, _ width: Int, _ height: Int, _ pixelFormatType: OSType, _ pixelBufferAttributes: CFDictionary?, _ pixelBufferOut: UnsafeMutablePointer<CVPixelBuffer?>) -> CVReturn { fatalError() }  // objc CVPixelBufferCreate(6)
@discardableResult
public func CVPixelBufferLockBaseAddress(_ pixelBuffer: CVPixelBuffer, _ lockFlags: CVPixelBufferLockFlags) -> CVReturn { fatalError() }  // objc CVPixelBufferLockBaseAddress(2)
@discardableResult
public func CVPixelBufferUnlockBaseAddress(_ pixelBuffer: CVPixelBuffer, _ unlockFlags: CVPixelBufferLockFlags) -> CVReturn { fatalError() }  // objc CVPixelBufferUnlockBaseAddress(2)
public func CVPixelBufferGetBaseAddress(_ pixelBuffer: CVPixelBuffer) -> UnsafeMutableRawPointer? { fatalError() }  // objc CVPixelBufferGetBaseAddress(1)
public func CVPixelBufferGetBytesPerRow(_ pixelBuffer: CVPixelBuffer) -> Int { fatalError() }  // objc CVPixelBufferGetBytesPerRow(1)
public func CVPixelBufferGetHeight(_ pixelBuffer: CVPixelBuffer) -> Int { fatalError() }  // objc CVPixelBufferGetHeight(1)
public func CVPixelBufferGetWidth(_ pixelBuffer: CVPixelBuffer) -> Int { fatalError() }  // objc CVPixelBufferGetWidth(1)
