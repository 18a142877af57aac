import CoreML
import FaceCore
import Foundation
import Metal

/// Core ML's custom layer of route `custom`: `export/coreml_custom.py` names it and its parameters. On the CPU it is the C kernel; on the GPU
/// `DeformSample.metal`, whose results the detector compares with the kernel's before it believes them.
#if canImport(ObjectiveC)  // for the checks, which run elsewhere
  @objc(AcwfaceDeformSample)
#endif
final class DeformSampleLayer: NSObject, MLCustomLayer {
  private let layer: DeformLayer
  private var parameters: Parameters

  /// Made when Core ML first asks; there is no GPU in some simulators.
  private lazy var pipeline: (any MTLComputePipelineState)? = {
    guard let device = MTLCreateSystemDefaultDevice(), let library = device.makeDefaultLibrary(),
      let function = library.makeFunction(name: "acwface_deform_sample")
    else { return nil }
    return try? device.makeComputePipelineState(function: function)
  }()

  /// As `DeformSample.metal` declares it.
  private struct Parameters {
    /// Of the image; Core ML tells it before it encodes.
    var height: Int32 = 0
    let offsetLimit, negativeSlope: Float
  }

  init(parameters: [String: Any]) throws {
    guard let channels = parameters["channels"] as? NSNumber, let limit = parameters["offset_limit"] as? NSNumber,
      let slope = parameters["negative_slope"] as? NSNumber
    else { throw FormatError("a custom layer without channels, offset_limit or negative_slope") }
    layer = try DeformLayer(channels: channels.intValue, offsetLimit: limit.doubleValue, negativeSlope: slope.doubleValue)
    self.parameters = Parameters(offsetLimit: limit.doubleValue > 0 ? limit.floatValue : .infinity, negativeSlope: slope.floatValue)
  }

  /// There are none: bias is an input.
  func setWeightData(_ weights: [Data]) throws {}

  func outputShapes(forInputShapes inputShapes: [[NSNumber]]) throws -> [[NSNumber]] {
    guard inputShapes.count == 3 else { throw FormatError("a custom layer with \(inputShapes.count) inputs") }
    let shapes = inputShapes.map { $0.map(\.intValue) }
    let shape = try layer.outputShape(predicted: shapes[0], mixed: shapes[1], bias: shapes[2])
    parameters.height = Int32(shape[1])
    return [shape.map { NSNumber(value: $0) }]
  }

  func evaluate(inputs: [MLMultiArray], outputs: [MLMultiArray]) throws {
    guard inputs.count == 3, outputs.count == 1, (inputs + outputs).allSatisfy({ $0.dataType == .float32 }) else {
      throw FormatError("a custom layer with arrays that are not of single precision")
    }
    try withTensors(inputs + outputs) { try layer.run(predicted: $0[0], mixed: $0[1], bias: $0[2], out: $0[3]) }
  }

  func encode(commandBuffer: any MTLCommandBuffer, inputs: [any MTLTexture], outputs: [any MTLTexture]) throws {
    guard let pipeline, inputs.count == 3, outputs.count == 1, let encoder = commandBuffer.makeComputeCommandEncoder() else {
      throw FormatError("a custom layer that cannot be run on the GPU")
    }
    encoder.setComputePipelineState(pipeline)
    for (index, texture) in (inputs + outputs).enumerated() { encoder.setTexture(texture, index: index) }
    withUnsafeBytes(of: parameters) { encoder.setBytes($0.baseAddress!, length: $0.count, index: 0) }
    let out = outputs[0]
    encoder.dispatchThreads(
      MTLSize(width: out.width, height: out.height, depth: out.arrayLength),
      threadsPerThreadgroup: MTLSize(width: pipeline.threadExecutionWidth, height: 1, depth: 1))
    encoder.endEncoding()
  }
}
