@preconcurrency import AVFoundation
import SwiftUI
import UIKit

/// Faces in what the camera sees.
struct CameraView: View {
  let session: DetectorSession
  @State private var camera: Camera
  @State private var front = true
  @State private var mirrored = false
  @State private var problem: String?
  @State private var canOpenSettings = false

  /// Counts starts, for the preview to follow the camera that runs.
  @State private var started = 0
  @Environment(\.openURL) private var openURL

  init(session: DetectorSession) {
    self.session = session
    _camera = State(initialValue: Camera(session.detector) { session.show($0, isContinuous: true) })
  }

  var body: some View {
    DetectorScreen(session: session, fill: true, mirrored: mirrored) {
      CameraPreview(session: camera.session, started: started).accessibilityLabel(Texts.cameraPreview)
      if let problem {
        VStack {
          Text(problem).multilineTextAlignment(.center)
          if canOpenSettings {
            Button(Texts.openSettings) {
              if let settings = URL(string: UIApplication.openSettingsURLString) { openURL(settings) }
            }
          }
        }
        .padding()
      }
    } buttons: {
      Button(Texts.switchCamera, systemImage: "arrow.triangle.2.circlepath.camera") { front.toggle() }
    }
    .task(id: front) { await start() }
    .task {
      for await _ in NotificationCenter.default.notifications(named: AVCaptureSession.wasInterruptedNotification).map({ $0.name }) {
        problem = Texts.cameraInterrupted
      }
    }
    .task {
      for await _ in NotificationCenter.default.notifications(named: AVCaptureSession.interruptionEndedNotification).map({ $0.name }) {
        problem = nil
      }
    }
    .task {
      for await _ in NotificationCenter.default.notifications(named: AVCaptureSession.runtimeErrorNotification).map({ $0.name }) {
        await start()
      }
    }
    .onDisappear {
      Task { await camera.stop() }
      session.isLive = false
      session.clearPicture()
    }
  }

  private func start() async {
    session.clearPicture()
    session.isLive = true
    do {
      mirrored = try await camera.start(front: front)  // as the preview shows it
      (problem, canOpenSettings) = (nil, false)
      started += 1
    } catch {
      canOpenSettings = (error as? CameraProblem) == .denied
      problem = describe(error)
    }
  }

  private func describe(_ error: any Error) -> String {
    switch error as? CameraProblem {
    case .denied: Texts.cameraDenied
    case .absent: Texts.noCamera
    case .refused: Texts.cameraFailed(Texts.cameraRefusesSettings)
    case .failed(let reason): Texts.cameraFailed(reason)
    case nil: Texts.cameraFailed(error.localizedDescription)
    }
  }
}

/// The camera's picture as the system draws it, upright in every orientation.
private struct CameraPreview: UIViewRepresentable {
  let session: AVCaptureSession
  let started: Int

  func makeUIView(context: Context) -> PreviewView {
    let view = PreviewView()
    view.preview.session = session
    view.preview.videoGravity = .resizeAspectFill
    return view
  }

  func updateUIView(_ view: PreviewView, context: Context) {
    view.followRotation(of: started)
  }
}

private final class PreviewView: UIView {
  private var coordinator: AVCaptureDevice.RotationCoordinator?
  private var observation: NSKeyValueObservation?
  private var followed = 0

  override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }

  var preview: AVCaptureVideoPreviewLayer { layer as! AVCaptureVideoPreviewLayer }

  /// Frames are turned as the preview is, so that faces are where they are seen, and upright. Each start makes connections anew.
  func followRotation(of started: Int) {
    guard started != followed, let device = (preview.session?.inputs.first as? AVCaptureDeviceInput)?.device else { return }
    followed = started
    let coordinator = AVCaptureDevice.RotationCoordinator(device: device, previewLayer: preview)
    self.coordinator = coordinator
    observation = coordinator.observe(\.videoRotationAngleForHorizonLevelPreview, options: [.initial, .new]) { [weak self] coordinator, _ in
      let angle = coordinator.videoRotationAngleForHorizonLevelPreview
      Task { @MainActor in self?.turn(to: angle) }
    }
  }

  private func turn(to angle: CGFloat) {
    for connection in [preview.connection, preview.session?.outputs.first?.connection(with: .video)] {
      if let connection, connection.isVideoRotationAngleSupported(angle) { connection.videoRotationAngle = angle }
    }
  }
}
