@_exported import CoreVideo
@_exported import Metal

public enum MLComputeUnits: Int {
  case cpuOnly  // objc MLComputeUnits/CPUOnly
  case cpuAndGPU  // objc MLComputeUnits/CPUAndGPU
  case all  // objc MLComputeUnits/All
  case cpuAndNeuralEngine  // objc MLComputeUnits/CPUAndNeuralEngine
}

open class MLModelConfiguration: NSObject {
  public var computeUnits: MLComputeUnits = .all  // objc MLModelConfiguration.computeUnits
}

open class MLModel: NSObject {
  public init(contentsOf url: URL, configuration: MLModelConfiguration) throws { fatalError() }  // objc +[MLModel modelWithContentsOfURL:configuration:error:]
  public class func compileModel(at modelURL: URL) async throws -> URL { fatalError() }  // objc +[MLModel compileModelAtURL:completionHandler:]
  public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { fatalError() }  // objc -[MLModel predictionFromFeatures:error:]
}

public protocol MLFeatureProvider: AnyObject {
  func featureValue(for featureName: String) -> MLFeatureValue?  // objc -[MLFeatureProvider featureValueForName:]
}

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
  public init(dictionary: [String: Any]) throws { fatalError() }  // objc -[MLDictionaryFeatureProvider initWithDictionary:error:]
  public func featureValue(for featureName: String) -> MLFeatureValue? { fatalError() }  // objc -[MLDictionaryFeatureProvider featureValueForName:]
}

open class MLFeatureValue: NSObject {
  public convenience init(pixelBuffer value: CVPixelBuffer) { fatalError() }  // objc +[MLFeatureValue featureValueWithPixelBuffer:]
  public var multiArrayValue: MLMultiArray? { fatalError() }  // objc MLFeatureValue.multiArrayValue
}

public enum MLMultiArrayDataType: Int {
  case float32  // objc MLMultiArrayDataType/Float32
}

open class MLMultiArray: NSObject {
  public var dataType: MLMultiArrayDataType { fatalError() }  // objc MLMultiArray.dataType
  public var shape: [NSNumber] { fatalError() }  // objc MLMultiArray.shape
}

public protocol MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar {}

extension MLMultiArray {
  public func withUnsafeMutableBufferPointer<S, R>(ofType type: S.Type, _ body: (UnsafeMutableBufferPointer<S>, [Int]) throws -> R) rethrows -> R where S: MLShapedArrayScalar { fatalError() }  // swift
}

public protocol MLCustomLayer {
  init(parameters: [String: Any]) throws  // objc -[MLCustomLayer initWithParameterDictionary:error:]
  func setWeightData(_ weights: [Data]) throws  // objc -[MLCustomLayer setWeightData:error:]
  func outputShapes(forInputShapes inputShapes: [[NSNumber]]) throws -> [[NSNumber]]  // objc -[MLCustomLayer outputShapesForInputShapes:error:]
  func evaluate(inputs: [MLMultiArray], outputs: [MLMultiArray]) throws  // objc -[MLCustomLayer evaluateOnCPUWithInputs:outputs:error:]
  func encode(commandBuffer: any MTLCommandBuffer, inputs: [any MTLTexture], outputs: [any MTLTexture]) throws  // objc -[MLCustomLayer encodeToCommandBuffer:inputs:outputs:error:]
}

// The compute plan has a Swift interface of its own.

public final class MLComputePlan: Sendable {
  public struct DeviceUsage: Sendable {
    public let preferred: MLComputeDevice  // swift
  }
  public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLComputePlan { fatalError() }  // swift
  public var modelStructure: MLModelStructure { fatalError() }  // swift
  public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? { fatalError() }  // swift
  public func deviceUsage(for layer: MLModelStructure.NeuralNetwork.Layer) -> DeviceUsage? { fatalError() }  // swift
}

public enum MLComputeDevice: Sendable {
  case cpu(MLCPUComputeDevice)  // swift
  case gpu(MLGPUComputeDevice)  // swift
  case neuralEngine(MLNeuralEngineComputeDevice)  // swift
}
public final class MLCPUComputeDevice: Sendable {}
public final class MLGPUComputeDevice: Sendable {}
public final class MLNeuralEngineComputeDevice: Sendable {}

public enum MLModelStructure: Sendable {
  case neuralNetwork(NeuralNetwork)  // swift
  case program(Program)  // swift
  case pipeline(Pipeline)  // swift
  case unsupported  // swift
  public struct NeuralNetwork: Sendable {
    public struct Layer: Sendable {}
    public let layers: [Layer]  // swift
  }
  public struct Program: Sendable {
    public struct Operation: Sendable {}
    public struct Block: Sendable {
      public let operations: [Operation]  // swift
    }
    public struct Function: Sendable {
      public let block: Block  // swift
    }
    public let functions: [String: Function]  // swift
  }
  public struct Pipeline: Sendable {}
}
