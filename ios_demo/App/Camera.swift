@preconcurrency import AVFoundation
import Dispatch

/// Why there is no picture.
enum CameraProblem: Error, Equatable {
  case denied, absent, refused
  case failed(String)
}

/// The session that captures frames. It is set up on a queue of its own, because starting it takes long; frames go to the detector's queue.
actor Camera {
  nonisolated let session = AVCaptureSession()
  nonisolated var unownedExecutor: UnownedSerialExecutor { queue.asUnownedSerialExecutor() }

  private let queue = DispatchSerialQueue(label: "camera")
  private let output = AVCaptureVideoDataOutput()
  private let receiver: FrameReceiver

  /// - Parameter show: what each frame has; while one is in work, newer ones are dropped.
  init(_ detector: Detector, show: @escaping @MainActor @Sendable (Result<Detection, any Error>) -> Void) {
    receiver = FrameReceiver(detector, show)
  }

  /// Asks for permission where it has not been given or refused.
  ///
  /// - Returns: whether the camera is the one in front: where only one is there, it is taken.
  /// - Throws: ``CameraProblem``.
  func start(front: Bool) async throws -> Bool {
    guard await AVCaptureDevice.requestAccess(for: .video) else { throw CameraProblem.denied }
    guard let device = device(front ? .front : .back) ?? device(front ? .back : .front) else { throw CameraProblem.absent }
    let input: AVCaptureDeviceInput
    do {
      input = try AVCaptureDeviceInput(device: device)
    } catch {
      throw CameraProblem.failed(error.localizedDescription)
    }
    try configure(input)
    if !session.isRunning { session.startRunning() }
    return device.position == .front
  }

  func stop() {
    if session.isRunning { session.stopRunning() }
  }

  private func device(_ position: AVCaptureDevice.Position) -> AVCaptureDevice? {
    AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: position)
  }

  private func configure(_ input: AVCaptureDeviceInput) throws {
    session.beginConfiguration()
    defer { session.commitConfiguration() }
    for old in session.inputs { session.removeInput(old) }
    if session.canSetSessionPreset(.vga640x480) { session.sessionPreset = .vga640x480 }
    guard session.canAddInput(input) else { throw CameraProblem.refused }
    session.addInput(input)
    guard session.outputs.isEmpty else { return }
    output.alwaysDiscardsLateVideoFrames = true
    output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA]
    guard session.canAddOutput(output) else { throw CameraProblem.refused }
    session.addOutput(output)
    output.setSampleBufferDelegate(receiver, queue: receiver.detector.queue)
  }
}

/// Hands frames to the detector, on whose queue they come.
private final class FrameReceiver: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, Sendable {
  let detector: Detector
  private let show: @MainActor @Sendable (Result<Detection, any Error>) -> Void

  init(_ detector: Detector, _ show: @escaping @MainActor @Sendable (Result<Detection, any Error>) -> Void) {
    self.detector = detector
    self.show = show
  }

  func captureOutput(_ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection) {
    let result: Result<Detection, any Error>
    do {
      guard let detection = try detector.assumeIsolated({ try $0.detect(sampleBuffer) }) else { return }
      result = .success(detection)
    } catch {
      result = .failure(error)
    }
    Task { @MainActor in show(result) }
  }
}
