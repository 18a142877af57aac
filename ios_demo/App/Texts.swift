import FaceCore
import Foundation

/// Everything that people read. `Localizable.xcstrings` has the same sentences; `make test-ios` compares them.
enum Texts {
  static var camera: String { String(localized: "Camera") }
  static var photograph: String { String(localized: "Photograph") }
  static var benchmark: String { String(localized: "Benchmark") }
  static var cameraPreview: String { String(localized: "Camera preview") }
  static var switchCamera: String { String(localized: "Switch camera") }
  static var choosePhotograph: String { String(localized: "Choose photograph") }
  static var model: String { String(localized: "Model") }
  static var runsOn: String { String(localized: "Runs on") }

  static func faces(_ count: Int) -> String { String(localized: "\(count) faces") }
  static func percent(_ percent: Int) -> String { String(localized: "\(percent) %") }

  /// Three stages in milliseconds.
  static func times(_ times: StageTimes) -> String {
    let (before, network, after) = (one(times.before), one(times.network), one(times.after))
    return String(localized: "Before \(before) ms · network \(network) ms · after \(after) ms")
  }
  static func rate(_ framesPerSecond: Double) -> String { String(localized: "\(one(framesPerSecond)) FPS") }

  static func units(_ units: ComputeUnits) -> String {
    switch units {
    case .all: String(localized: "All processors")
    case .cpuAndNeuralEngine: String(localized: "CPU and Neural Engine")
    case .cpuAndGPU: String(localized: "CPU and GPU")
    case .cpuOnly: String(localized: "CPU only")
    }
  }
  static func placement(_ placement: Placement) -> String {
    String(
      localized: "Operations planned: Neural Engine \(placement.neuralEngine), GPU \(placement.gpu), CPU \(placement.cpu)"
    )
  }
  static var placementUnknown: String { String(localized: "Core ML does not tell where this model runs.") }
  static var customLayerOnCPU: String {
    String(localized: "On the GPU this model's own layers give other results than on the CPU, so it runs on the CPU only.")
  }

  static func opening(_ name: String) -> String { String(localized: "Opening \(name) …") }
  static var noModels: String {
    String(localized: "There is no model in this app. Run “make ios-assets” in the project and build the app again.")
  }
  static func broken(_ name: String, _ reason: String) -> String { String(localized: "\(name) cannot be read: \(reason)") }
  static func damaged(_ name: String) -> String {
    String(localized: "The model file of \(name) is not the one that was exported. Run “make ios-assets” again.")
  }
  static func failed(_ name: String, _ reason: String) -> String { String(localized: "\(name) does not run: \(reason)") }

  static func incompatible(_ name: String, _ problem: Incompatibility) -> String {
    let reason =
      switch problem {
      case .format(let needed, let present): String(localized: "it is for \(needed), this app runs \(present)")
      case .system(let needed, let present): String(localized: "it needs iOS \(needed), this is \(present)")
      case .library(let needed): String(localized: "it needs the library \(needed), which this app does not have")
      case .libraryVersion(let needed, let present):
        String(localized: "it needs version \(needed) of its library, this app has \(present)")
      case .input(let input): String(localized: "its input is \(input), this app needs a picture of fixed size")
      case .outputs(let outputs): String(localized: "its outputs are \(outputs), which do not fit its anchors")
      }
    return String(localized: "\(name) cannot be used: \(reason)")
  }
  static func noOutput(_ name: String) -> String { String(localized: "there is no output \(name) of single precision") }
  static var noPictureBuffer: String { String(localized: "there is no memory for a picture") }

  static var cameraDenied: String {
    String(localized: "Without permission for the camera there is no preview. Photographs from the library work.")
  }
  static var openSettings: String { String(localized: "Open Settings") }
  static var noCamera: String { String(localized: "This device has no camera. Photographs from the library work.") }
  static var cameraInterrupted: String {
    String(localized: "The camera is not available now. It comes back when the other app lets go of it.")
  }
  static func cameraFailed(_ reason: String) -> String { String(localized: "The camera cannot be opened: \(reason)") }
  static var cameraRefusesSettings: String { String(localized: "it does not give the pictures that are needed") }
  static var photographFailed: String { String(localized: "This photograph cannot be opened.") }

  static var measure: String { String(localized: "Measure") }
  static var share: String { String(localized: "Share the record") }
  static func measuring(_ name: String) -> String { String(localized: "Measuring \(name) …") }
  static func noModel(_ name: String) -> String { String(localized: "There is no model \(name) in this app.") }
  static func notMeasured(_ reason: String) -> String { String(localized: "Not measured: \(reason)") }
  static var benchmarkArguments: String {
    String(localized: "units must be all, cpuAndNeuralEngine, cpuAndGPU or cpuOnly; runs at least 1; warmup at least 0")
  }

  private static func one(_ value: Double) -> String { value.formatted(.number.precision(.fractionLength(1))) }
}
