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

  private let queue = DispatchSerialQueue(label: "camera", qos: .userInitiated)
  private let output = AVCaptureVideoDataOutput()
  private let receiver: FrameReceiver

  /// Of each frame; while one is in work, newer ones are dropped.
  nonisolated let results: AsyncStream<Result<Detection, any Error>>

  init(_ detector: Detector) {
    let (stream, continuation) = AsyncStream.makeStream(of: Result<Detection, any Error>.self, bufferingPolicy: .bufferingNewest(1))
    results = stream
    receiver = FrameReceiver(detector, continuation)
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
  private let results: AsyncStream<Result<Detection, any Error>>.Continuation

  init(_ detector: Detector, _ results: AsyncStream<Result<Detection, any Error>>.Continuation) {
    self.detector = detector
    self.results = results
  }

  func captureOutput(_ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection) {
    detector.assumeIsolated { detector in
      do {
        if let detection = try detector.detect(sampleBuffer) { results.yield(.success(detection)) }
      } catch {
        results.yield(.failure(error))
      }
    }
  }
}
