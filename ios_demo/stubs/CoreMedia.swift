@_exported import CoreVideo

public final class CMSampleBuffer {}

public func CMSampleBufferGetImageBuffer(_ sbuf: CMSampleBuffer) -> CVPixelBuffer? { fatalError() }  // objc CMSampleBufferGetImageBuffer(1)
