@_exported import CoreMedia
import Dispatch
@_exported import QuartzCore

public struct AVMediaType: Sendable {
  public static let video = AVMediaType()  // objc AVMediaTypeVideo
}

public enum AVLayerVideoGravity {
  case resizeAspectFill  // objc AVLayerVideoGravityResizeAspectFill
}

open class AVCaptureDevice: NSObject {
  public enum Position: Int {
    case back  // objc AVCaptureDevicePosition/Back
    case front  // objc AVCaptureDevicePosition/Front
  }
  public struct DeviceType {
    public static var builtInWideAngleCamera: DeviceType { fatalError() }  // objc AVCaptureDeviceTypeBuiltInWideAngleCamera
  }
  public var position: Position { fatalError() }  // objc AVCaptureDevice.position
  public class func requestAccess(for mediaType: AVMediaType) async -> Bool { fatalError() }  // objc +[AVCaptureDevice requestAccessForMediaType:completionHandler:]
  public class func `default`(_ deviceType: DeviceType, for mediaType: AVMediaType?, position: Position) -> AVCaptureDevice? { fatalError() }  // objc +[AVCaptureDevice defaultDeviceWithDeviceType:mediaType:position:]

  open class RotationCoordinator: NSObject {
    public init(device: AVCaptureDevice, previewLayer: CALayer?) { fatalError() }  // objc -[AVCaptureDeviceRotationCoordinator initWithDevice:previewLayer:]
    public weak var device: AVCaptureDevice? { fatalError() }  // objc AVCaptureDeviceRotationCoordinator.device
    public var videoRotationAngleForHorizonLevelPreview: CGFloat { fatalError() }  // objc AVCaptureDeviceRotationCoordinator.videoRotationAngleForHorizonLevelPreview
  }
}

open class AVCaptureInput: NSObject {}

open class AVCaptureDeviceInput: AVCaptureInput {
  public init(device: AVCaptureDevice) throws { fatalError() }  // objc -[AVCaptureDeviceInput initWithDevice:error:]
  public var device: AVCaptureDevice { fatalError() }  // objc AVCaptureDeviceInput.device
}

open class AVCaptureConnection: NSObject {
  public func isVideoRotationAngleSupported(_ videoRotationAngle: CGFloat) -> Bool { fatalError() }  // objc -[AVCaptureConnection isVideoRotationAngleSupported:]
  public var videoRotationAngle: CGFloat = 0  // objc AVCaptureConnection.videoRotationAngle
}

open class AVCaptureOutput: NSObject {
  public func connection(with mediaType: AVMediaType) -> AVCaptureConnection? { fatalError() }  // objc -[AVCaptureOutput connectionWithMediaType:]
}

open class AVCaptureVideoDataOutput: AVCaptureOutput {
  public override init() { fatalError() }  // objc +[AVCaptureVideoDataOutput new]
  public var alwaysDiscardsLateVideoFrames = true  // objc AVCaptureVideoDataOutput.alwaysDiscardsLateVideoFrames
  public var videoSettings: [String: Any]! = nil  // objc AVCaptureVideoDataOutput.videoSettings
  public func setSampleBufferDelegate(_ sampleBufferDelegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?, queue sampleBufferCallbackQueue: DispatchQueue?) { fatalError() }  // objc -[AVCaptureVideoDataOutput setSampleBufferDelegate:queue:]
}

public protocol AVCaptureVideoDataOutputSampleBufferDelegate: NSObjectProtocol {
  func captureOutput(_ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection)  // objc -[AVCaptureVideoDataOutputSampleBufferDelegate captureOutput:didOutputSampleBuffer:fromConnection:]
}

open class AVCaptureSession: NSObject {
  public struct Preset {
    public static var vga640x480: Preset { fatalError() }  // objc AVCaptureSessionPreset640x480
  }
  public static let wasInterruptedNotification = NSNotification.Name("")  // objc AVCaptureSessionWasInterruptedNotification
  public static let interruptionEndedNotification = NSNotification.Name("")  // objc AVCaptureSessionInterruptionEndedNotification
  public static let runtimeErrorNotification = NSNotification.Name("")  // objc AVCaptureSessionRuntimeErrorNotification
  public var inputs: [AVCaptureInput] { fatalError() }  // objc AVCaptureSession.inputs
  public var outputs: [AVCaptureOutput] { fatalError() }  // objc AVCaptureSession.outputs
  public var isRunning: Bool { fatalError() }  // objc AVCaptureSession.running
  public var sessionPreset: Preset { get { fatalError() } set {} }  // objc AVCaptureSession.sessionPreset
  public func canSetSessionPreset(_ preset: Preset) -> Bool { fatalError() }  // objc -[AVCaptureSession canSetSessionPreset:]
  public func canAddInput(_ input: AVCaptureInput) -> Bool { fatalError() }  // objc -[AVCaptureSession canAddInput:]
  public func addInput(_ input: AVCaptureInput) { fatalError() }  // objc -[AVCaptureSession addInput:]
  public func removeInput(_ input: AVCaptureInput) { fatalError() }  // objc -[AVCaptureSession removeInput:]
  public func canAddOutput(_ output: AVCaptureOutput) -> Bool { fatalError() }  // objc -[AVCaptureSession canAddOutput:]
  public func addOutput(_ output: AVCaptureOutput) { fatalError() }  // objc -[AVCaptureSession addOutput:]
  public func beginConfiguration() { fatalError() }  // objc -[AVCaptureSession beginConfiguration]
  public func commitConfiguration() { fatalError() }  // objc -[AVCaptureSession commitConfiguration]
  public func startRunning() { fatalError() }  // objc -[AVCaptureSession startRunning]
  public func stopRunning() { fatalError() }  // objc -[AVCaptureSession stopRunning]
}

open class AVCaptureVideoPreviewLayer: CALayer {
  public var session: AVCaptureSession?  // objc AVCaptureVideoPreviewLayer.session
  public var connection: AVCaptureConnection? { fatalError() }  // objc AVCaptureVideoPreviewLayer.connection
  public var videoGravity: AVLayerVideoGravity = .resizeAspectFill  // objc AVCaptureVideoPreviewLayer.videoGravity
}
