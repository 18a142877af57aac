import AcwfaceKernel
import Dispatch

/// What is left of a deformable convolution when its nine tap matrices have been applied: the operator DeformSample of
/// `export/kernel/README.md`, by its C kernel, for Core ML's custom layer.
public struct DeformLayer: Sendable {
  /// Of the output.
  public let channels: Int
  private let offsetLimit: Float
  private let negativeSlope: Float

  private static let predicted = 27
  private static let taps = 9

  /// - Parameters:
  ///   - offsetLimit: pixels; 0 for none.
  ///   - negativeSlope: 1 for no activation, 0 for ReLU.
  /// - Throws: ``FormatError``: no channels.
  public init(channels: Int, offsetLimit: Double, negativeSlope: Double) throws {
    guard channels > 0 else { throw FormatError("a deformable layer of \(channels) channels") }
    self.channels = channels
    self.offsetLimit = offsetLimit > 0 ? Float(offsetLimit) : .infinity
    self.negativeSlope = Float(negativeSlope)
  }

  /// Of the output, for shapes of the inputs.
  ///
  /// - Throws: ``FormatError``: they are not `(1, H, W, 27)`, `(1, H, W, 9 O)` and `(O)`.
  public func outputShape(predicted: [Int], mixed: [Int], bias: [Int]) throws -> [Int] {
    guard predicted.count == 4, predicted[0] == 1, predicted[3] == Self.predicted, mixed == predicted.dropLast() + [Self.taps * channels],
      bias == [channels]
    else { throw FormatError("a deformable layer of \(channels) channels with inputs \(predicted), \(mixed), \(bias)") }
    return predicted.dropLast() + [channels]
  }

  /// Computes the layer on all processors.
  ///
  /// - Parameters:
  ///   - predicted: `(1, H, W, 27)`: nine offsets (y, x), then nine modulators.
  ///   - mixed: `(1, H, W, 9 O)`: channel o of tap k at k O + o.
  ///   - bias: `(O)`.
  ///   - out: `(1, H, W, O)`.
  /// - Throws: ``FormatError``: other shapes, or an order in memory that the kernel does not take.
  public func run(predicted: Tensor, mixed: Tensor, bias: Tensor, out: Tensor) throws {
    try run(predicted: predicted, mixed: mixed, bias: bias, out: out, kernel: acwface_kernel(0).pointee)
  }

  func run(predicted: Tensor, mixed: Tensor, bias: Tensor, out: Tensor, kernel: AcwfaceKernel) throws {
    guard out.shape == (try outputShape(predicted: predicted.shape, mixed: mixed.shape, bias: bias.shape)) else {
      throw FormatError("a deformable layer of \(channels) channels with output \(out.shape)")
    }
    guard predicted.hasEvenPixels, mixed.hasEvenPixels, out.hasEvenPixels, mixed.strides[3] == 1, bias.strides == [1] else {
      throw FormatError("arrays in an order that the kernel does not take: strides \(predicted.strides), \(mixed.strides), \(out.strides)")
    }
    let (height, width) = (Int32(predicted.shape[1]), Int32(predicted.shape[2]))
    let layer = AcwfaceDeform(
      height: height, width: width, channels: Int32(channels), predicted: predicted.base, predicted_pixel: predicted.strides[2],
      predicted_channel: predicted.strides[3], bias: bias.base, out: out.base, out_pixel: out.strides[2], out_channel: out.strides[3],
      offset_limit: offsetLimit, negative_slope: negativeSlope)
    // Only read, and nobody is left who does when concurrentPerform returns.
    nonisolated(unsafe) let operation = AcwfaceDeformSample(layer: layer, mixed: mixed.base, mixed_pixel: mixed.strides[2])
    nonisolated(unsafe) let sample = kernel.sample!
    let (pixels, chunk) = (height * width, Int32(ACWFACE_CHUNK))
    DispatchQueue.concurrentPerform(iterations: Int((pixels + chunk - 1) / chunk)) { part in
      let first = Int32(part) * chunk
      withUnsafePointer(to: operation) { sample($0, first, min(first + chunk, pixels)) }
    }
  }

  /// Those that this processor can run, the best first.
  static var kernels: [AcwfaceKernel] {
    (0...).lazy.map { acwface_kernel(Int32($0)) }.prefix { $0 != nil }.map { $0!.pointee }
  }
}

extension Tensor {
  /// Whether pixels follow each other at one distance, from row to row too.
  fileprivate var hasEvenPixels: Bool { shape[1] == 1 || strides[1] == shape[2] * strides[2] }
}
