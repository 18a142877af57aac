import CoreML
import CoreVideo
import FaceCore
import Foundation

/// What Core ML may use; the names are the benchmark's.
enum ComputeUnits: String, CaseIterable, Identifiable, Sendable {
  case all, cpuAndNeuralEngine, cpuAndGPU, cpuOnly

  var id: String { rawValue }

  var configuration: MLModelConfiguration {
    let configuration = MLModelConfiguration()
    configuration.computeUnits =
      switch self {
      case .all: .all
      case .cpuAndNeuralEngine: .cpuAndNeuralEngine
      case .cpuAndGPU: .cpuAndGPU
      case .cpuOnly: .cpuOnly
      }
    return configuration
  }
}

/// How many operations Core ML plans to run where.
struct Placement: Sendable, Equatable {
  var neuralEngine = 0
  var gpu = 0
  var cpu = 0

  /// - Returns: nil where Core ML does not tell, for models that it has no plan of.
  static func load(_ compiled: URL, _ units: ComputeUnits) async -> Placement? {
    guard let plan = try? await MLComputePlan.load(contentsOf: compiled, configuration: units.configuration) else { return nil }
    var devices: [MLComputeDevice] = []
    switch plan.modelStructure {
    case .program(let program):
      let operations = program.functions.values.flatMap(\.block.operations)
      devices = operations.compactMap { plan.deviceUsage(for: $0)?.preferred }
    case .neuralNetwork(let network):
      devices = network.layers.compactMap { plan.deviceUsage(for: $0)?.preferred }
    default:
      break
    }
    var placement = Placement()
    for device in devices {
      switch device {
      case .neuralEngine: placement.neuralEngine += 1
      case .gpu: placement.gpu += 1
      case .cpu: placement.cpu += 1
      @unknown default: break
      }
    }
    return devices.isEmpty ? nil : placement
  }
}

/// A Core ML model that is open. Not for two threads at a time.
final class Network {
  private let model: MLModel
  private let input: String
  private let outputs: [OutputTensor]
  private var answers = Outputs()

  init(_ compiled: URL, _ manifest: Manifest, _ units: ComputeUnits) throws {
    model = try MLModel(contentsOf: compiled, configuration: units.configuration)
    input = manifest.input.name
    outputs = manifest.outputs
  }

  /// - Parameter picture: of the size of the manifest's input, letterboxed.
  func run(_ picture: CVPixelBuffer) throws -> Outputs {
    let features = try MLDictionaryFeatureProvider(dictionary: [input: MLFeatureValue(pixelBuffer: picture)])
    let prediction = try model.prediction(from: features)
    for output in outputs {
      guard let array = prediction.featureValue(for: output.name)?.multiArrayValue, array.dataType == .float32 else {
        throw ModelError(text: Texts.noOutput(output.name))
      }
      withTensors([array]) { $0[0].copy(to: &answers[keyPath: Outputs.place(of: output.meaning)]) }
    }
    return answers
  }
}

/// Lends the memory of arrays of single precision.
func withTensors<R>(_ arrays: [MLMultiArray], _ tensors: [Tensor] = [], _ body: ([Tensor]) throws -> R) rethrows -> R {
  guard let array = arrays.first else { return try body(tensors) }
  let shape = array.shape.map(\.intValue)
  return try array.withUnsafeMutableBufferPointer(ofType: Float.self) { floats, strides in
    try withTensors(Array(arrays.dropFirst()), tensors + [Tensor(base: floats.baseAddress!, shape: shape, strides: strides)], body)
  }
}
