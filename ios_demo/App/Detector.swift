import CoreML
import CoreMedia
import CoreVideo
import Dispatch
import FaceCore
import Foundation

/// Milliseconds.
struct StageTimes: Sendable {
  let before, network, after: Double
}

/// Faces of one picture, in its pixels.
struct Detection: Sendable {
  let faces: [Face]
  let width, height: Int
  let times: StageTimes

  /// The detector's clock when it was done, milliseconds.
  let at: Double
}

/// A model that is open: on what it runs, and what Core ML plans.
struct OpenedModel: Sendable {
  let units: ComputeUnits
  let placement: Placement?

  /// Why that is not what was asked for.
  let refusal: String?
}

/// Of the network alone.
struct Measurement: Sendable {
  let loadMs: Double

  /// Milliseconds of each run after those to warm up.
  let times: [Double]

  /// What opening and running added to the process's resident memory at its peak; nil if another model was opened before.
  let peakMemoryBytes: Int?
}

/// Opens models and finds faces. Everything that has to do with models happens on ``queue``, one task after the other, never on the main one;
/// camera frames come on it as well.
///
/// Models run through MLModel and not through Vision: Vision's `scaleFit` centres the photograph, `model/preprocess.py` puts it into the upper
/// left corner, and its filter is not Pillow's.
actor Detector {
  nonisolated let queue = DispatchSerialQueue(label: "detector")
  nonisolated var unownedExecutor: UnownedSerialExecutor { queue.asUnownedSerialExecutor() }

  private var ready: Ready?

  /// Whether no model was opened yet: only then the process's memory says what one takes.
  private var isFresh = true

  /// What a picture needs on its way.
  private struct Ready {
    let network: Network
    let letterboxer: Letterboxer
    let picture: CVPixelBuffer
    let postprocessor: Postprocessor
  }

  /// The largest difference of scores between GPU and CPU that half precision explains: what exports are held to.
  private static let halfPrecision: Float = 0.05

  /// Takes the place of the model that was open.
  ///
  /// - Throws: ``ModelError``, in words for people.
  func open(_ model: Model, _ units: ComputeUnits) async throws -> OpenedModel {
    ready = nil  // first, so that never two are in memory
    try Models.check(model)
    do {
      let compiled = try await Models.compiled(model)
      try Task.checkCancellation()  // meanwhile another may have been chosen
      let picture = try makePicture(model.manifest)
      var (opened, refusal) = (units, String?.none)
      var network = try open(compiled, model.manifest, units)
      // The custom layer's Metal code is compared with its C code before it is believed.
      if model.manifest.runtime.library != nil, units != .cpuOnly {
        let reference = try open(compiled, model.manifest, .cpuOnly)
        fillWithNoise(picture)
        if try network.run(picture).scoreDifference(from: try reference.run(picture)) > Self.halfPrecision {
          (network, opened, refusal) = (reference, .cpuOnly, Texts.customLayerOnCPU)
        }
      }
      let manifest = model.manifest
      let anchors = try makeAnchors(
        height: CVPixelBufferGetHeight(picture), width: CVPixelBufferGetWidth(picture), strides: manifest.anchors.strides,
        minSizes: manifest.anchors.minSizes)
      ready = Ready(
        network: network, letterboxer: Letterboxer(spec: manifest.input.spec), picture: picture,
        postprocessor: Postprocessor(anchors: anchors, variances: manifest.anchors.variances, thresholds: manifest.thresholds))
      return OpenedModel(units: opened, placement: await Placement.load(compiled, opened), refusal: refusal)
    } catch let error as ModelError {
      throw error
    } catch {
      throw ModelError(text: Texts.failed(model.name, error.localizedDescription))
    }
  }

  /// Faces of a camera frame; nil while no model is open.
  func detect(_ frame: CMSampleBuffer) throws -> Detection? {
    guard let pixels = CMSampleBufferGetImageBuffer(frame) else { return nil }
    return try withPicture(pixels, .readOnly) { try detect($0) }
  }

  /// Faces of a photograph; nil while no model is open.
  func detect(_ photograph: Photograph) throws -> Detection? { try photograph.withPicture { try detect($0) } }

  /// Runs the network alone, on noise.
  func measure(_ model: Model, _ units: ComputeUnits, warmup: Int, runs: Int) async throws -> Measurement {
    ready = nil
    try Models.check(model)
    let compiled = try await Models.compiled(model)
    let picture = try makePicture(model.manifest)
    fillWithNoise(picture)
    let (wasFresh, memory) = (isFresh, peakMemory())
    let start = milliseconds()
    let network = try open(compiled, model.manifest, units)
    let loadMs = milliseconds() - start
    var times: [Double] = []
    for run in 0..<warmup + runs {
      let before = milliseconds()
      _ = try network.run(picture)
      if run >= warmup { times.append(milliseconds() - before) }
    }
    return Measurement(loadMs: loadMs, times: times, peakMemoryBytes: wasFresh ? peakMemory() - memory : nil)
  }

  private func open(_ compiled: URL, _ manifest: Manifest, _ units: ComputeUnits) throws -> Network {
    isFresh = false
    return try Network(compiled, manifest, units)
  }

  private func detect(_ photograph: Picture) throws -> Detection? {
    guard let ready else { return nil }
    let start = milliseconds()
    let letterbox = withPicture(ready.picture, []) { ready.letterboxer.prepare(photograph, into: $0) }
    let prepared = milliseconds()
    let outputs = try ready.network.run(ready.picture)
    let run = milliseconds()
    let faces = try ready.postprocessor.run(outputs, scaleX: letterbox.scaleX, scaleY: letterbox.scaleY)
    let end = milliseconds()
    let times = StageTimes(before: prepared - start, network: run - prepared, after: end - run)
    return Detection(faces: faces, width: photograph.width, height: photograph.height, times: times, at: end)
  }

  private func makePicture(_ manifest: Manifest) throws -> CVPixelBuffer {
    var picture: CVPixelBuffer?
    // Of an IOSurface, which GPU and Neural Engine read without a copy.
    let attributes = NSDictionary(dictionary: [kCVPixelBufferIOSurfacePropertiesKey as String: NSDictionary()])
    guard let height = manifest.input.height, let width = manifest.input.width,
      CVPixelBufferCreate(nil, width, height, kCVPixelFormatType_32BGRA, attributes as CFDictionary, &picture) == kCVReturnSuccess,
      let picture
    else { throw ModelError(text: Texts.noPictureBuffer) }
    return picture
  }

  /// A photograph that every phone has: what is in it does not change the time.
  private func fillWithNoise(_ picture: CVPixelBuffer) {
    withPicture(picture, []) { picture in
      var state: UInt32 = 1
      for byte in 0..<picture.height * picture.rowBytes {
        state = 1_664_525 &* state &+ 1_013_904_223
        picture.pixels.storeBytes(of: UInt8(state >> 24), toByteOffset: byte, as: UInt8.self)
      }
    }
  }

  private func withPicture<R>(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags, _ body: (Picture) throws -> R) rethrows -> R {
    CVPixelBufferLockBaseAddress(buffer, flags)
    defer { CVPixelBufferUnlockBaseAddress(buffer, flags) }
    let (height, width) = (CVPixelBufferGetHeight(buffer), CVPixelBufferGetWidth(buffer))
    // Locked, and of one plane: it has an address.
    let pixels = CVPixelBufferGetBaseAddress(buffer)!
    return try body(Picture(pixels: pixels, height: height, width: width, rowBytes: CVPixelBufferGetBytesPerRow(buffer)))
  }

  /// Bytes: the process's largest resident memory so far, as `runtime_bench/latency.py` reads it on a Mac.
  private func peakMemory() -> Int {
    var usage = rusage()
    getrusage(RUSAGE_SELF, &usage)
    return usage.ru_maxrss
  }

  private func milliseconds() -> Double { Double(DispatchTime.now().uptimeNanoseconds) / 1e6 }
}
