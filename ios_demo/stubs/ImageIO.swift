@_exported import CoreGraphics

public final class CGImageSource {}

public let kCGImageSourceCreateThumbnailFromImageAlways: CFString = ""  // objc kCGImageSourceCreateThumbnailFromImageAlways
public let kCGImageSourceCreateThumbnailWithTransform: CFString = ""  // objc kCGImageSourceCreateThumbnailWithTransform
public let kCGImageSourceThumbnailMaxPixelSize: CFString = ""  // objc kCGImageSourceThumbnailMaxPixelSize

public func CGImageSourceCreateWithData(_ data: CFData, _ options: CFDictionary?) -> CGImageSource? { fatalError() }  // objc CGImageSourceCreateWithData(2)
public func CGImageSourceCreateThumbnailAtIndex(_ isrc: CGImageSource, _ index: Int, _ options: CFDictionary?) -> CGImage? { fatalError() }  // objc CGImageSourceCreateThumbnailAtIndex(3)
