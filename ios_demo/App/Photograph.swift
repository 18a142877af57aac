import CoreGraphics
import FaceCore
import Foundation
import ImageIO

/// A photograph in memory: upright, blue, green, red and a spare byte for each pixel.
struct Photograph: Sendable {
  /// No side is longer; larger ones are scaled down when they are read.
  private static let maxSide = 4096

  let height, width: Int
  private let bytes: [UInt8]

  /// - Parameter data: a file of any format that the system knows.
  /// - Throws: ``ModelError``: it cannot be read.
  init(_ data: Data) throws {
    let options = NSDictionary(dictionary: [
      kCGImageSourceCreateThumbnailFromImageAlways as String: true, kCGImageSourceCreateThumbnailWithTransform as String: true,
      kCGImageSourceThumbnailMaxPixelSize as String: Self.maxSide,
    ])
    guard let source = CGImageSourceCreateWithData(NSData(data: data) as CFData, nil),
      let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary),
      let colours = CGColorSpace(name: CGColorSpace.sRGB)
    else { throw ModelError(text: Texts.photographFailed) }
    let (height, width) = (image.height, image.width)
    var bytes = [UInt8](repeating: 0, count: 4 * height * width)
    let order = CGImageAlphaInfo.noneSkipFirst.rawValue | CGBitmapInfo.byteOrder32Little.rawValue
    let drawn = bytes.withUnsafeMutableBytes { memory in
      let context = CGContext(
        data: memory.baseAddress, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width, space: colours,
        bitmapInfo: order)
      context?.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
      return context != nil
    }
    guard drawn else { throw ModelError(text: Texts.photographFailed) }
    (self.height, self.width, self.bytes) = (height, width, bytes)
  }

  /// For reading.
  func withPicture<R>(_ body: (Picture) throws -> R) rethrows -> R {
    try bytes.withUnsafeBytes { memory in
      let pixels = UnsafeMutableRawPointer(mutating: memory.baseAddress!)
      return try body(Picture(pixels: pixels, height: height, width: width, rowBytes: 4 * width))
    }
  }
}
