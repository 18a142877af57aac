@_exported import CoreTypes

public func MTLCreateSystemDefaultDevice() -> (any MTLDevice)? { fatalError() }  // objc MTLCreateSystemDefaultDevice(0)

public protocol MTLDevice: AnyObject {
  func makeDefaultLibrary() -> (any MTLLibrary)?  // objc -[MTLDevice newDefaultLibrary]
  func makeComputePipelineState(function computeFunction: any MTLFunction) throws -> any MTLComputePipelineState  // objc -[MTLDevice newComputePipelineStateWithFunction:error:]
}

public protocol MTLLibrary: AnyObject {
  func makeFunction(name functionName: String) -> (any MTLFunction)?  // objc -[MTLLibrary newFunctionWithName:]
}

public protocol MTLFunction: AnyObject {}

public protocol MTLComputePipelineState: AnyObject {
  var threadExecutionWidth: Int { get }  // objc MTLComputePipelineState.threadExecutionWidth
}

public protocol MTLCommandBuffer: AnyObject {
  func makeComputeCommandEncoder() -> (any MTLComputeCommandEncoder)?  // objc -[MTLCommandBuffer computeCommandEncoder]
}

public protocol MTLTexture: AnyObject {
  var width: Int { get }  // objc MTLTexture.width
  var height: Int { get }  // objc MTLTexture.height
  var arrayLength: Int { get }  // objc MTLTexture.arrayLength
}

public protocol MTLComputeCommandEncoder: AnyObject {
  func setComputePipelineState(_ state: any MTLComputePipelineState)  // objc -[MTLComputeCommandEncoder setComputePipelineState:]
  func setTexture(_ texture: (any MTLTexture)?, index: Int)  // objc -[MTLComputeCommandEncoder setTexture:atIndex:]
  func setBytes(_ bytes: UnsafeRawPointer, length: Int, index: Int)  // objc -[MTLComputeCommandEncoder setBytes:length:atIndex:]
  func dispatchThreads(_ threadsPerGrid: MTLSize, threadsPerThreadgroup: MTLSize)  // objc -[MTLComputeCommandEncoder dispatchThreads:threadsPerThreadgroup:]
  func endEncoding()  // objc -[MTLComputeCommandEncoder endEncoding]
}

public struct MTLSize {
  public init(width: Int, height: Int, depth: Int) {}  // swift
}
