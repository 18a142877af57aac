import Foundation
import Testing

@testable import FaceCore

/// What has no vectors.
struct CoreTests {
  @Test func versionsAreComparedByTheirNumbers() {
    #expect(isAtLeast("17.4", "17.4"))
    #expect(isAtLeast("17.10", "17.9.1"))
    #expect(isAtLeast("18", "17.9.1"))
    #expect(isAtLeast("17.4", "17.4.0"))
    #expect(isAtLeast("17.4.0-beta", "17.4.0"))
    #expect(!isAtLeast("15.8.3", "16"))
    #expect(!isAtLeast("17.4", "17.4.1"))
  }

  @Test func whatCannotRunIsSaid() throws {
    let text = try Golden.read("manifest.json").cases[0]["text"].string.replacing([
      ("tflite", "coreml"), ("litert", "coreml"), ("2.1.2", "16"), ("acwface_litert", "acwface_coreml"),
      ("\"1.1.1\"", "\"\(customLayerLibrary.version)\""), ("float32", "image"),
    ])
    func check(_ changes: [(String, String)] = [], system: String = "17.0") throws {
      try checkCompatibility(try Manifest(json: text.replacing(changes)), system: system)
    }
    try check()
    #expect(throws: Incompatibility.format(needed: "onnx, coreml", present: "coreml")) { try check([("\"coreml\"", "\"onnx\"")]) }
    #expect(throws: Incompatibility.system(needed: "16", present: "15.8")) { try check(system: "15.8") }
    #expect(throws: Incompatibility.library(needed: "other \(customLayerLibrary.version)")) { try check([("acwface_coreml", "other")]) }
    #expect(throws: Incompatibility.libraryVersion(needed: "0.1", present: customLayerLibrary.version)) {
      try check([("\"\(customLayerLibrary.version)\"", "\"0.1\"")])
    }
    #expect(throws: Incompatibility.libraryVersion(needed: "1.999", present: customLayerLibrary.version)) {
      try check([("\"\(customLayerLibrary.version)\"", "\"1.999\"")])
    }
    try check([("\"\(customLayerLibrary.version)\"", "\"1.1.1\"")])
    #expect(throws: Incompatibility.input("float32 1 x 480 x 640 x 3")) { try check([("\"dtype\":\"image\"", "\"dtype\":\"float32\"")]) }
    #expect(throws: Incompatibility.input("image 1 x ? x 640 x 3")) { try check([("[1,480,640,3]", "[1,null,640,3]")]) }
    #expect(throws: Incompatibility.input("image 1 x 480 x 640 x 1")) { try check([("[1,480,640,3]", "[1,480,640,1]")]) }
    #expect(throws: Incompatibility.self) { try check([("[1,480,640,3]", "[1,640,640,3]")]) }
    #expect(throws: Incompatibility.self) { try check([("[1,12600,4]", "[1,12600,5]")]) }
    #expect(throws: Incompatibility.self) { try check([("[1,12600,10]", "[1,12600,4]")]) }
  }

  @Test func networksThatDetectOnlyRun() throws {
    let text = try Golden.read("manifest.json").cases.first { $0["name"].string == "no landmarks" }!["text"].string.replacing([
      ("tflite", "coreml"), ("litert", "coreml"), ("2.1.2", "16"), ("acwface_litert", "acwface_coreml"), ("float32", "image"),
    ])
    let manifest = try Manifest(json: text)
    #expect(manifest.outputs.map(\.meaning) == [.scores, .boxDeltas])
    try checkCompatibility(manifest, system: "17.0")
    #expect(throws: Incompatibility.self) {
      try checkCompatibility(try Manifest(json: text.replacing([("[1,12600,4]", "[1,12600,10]")])), system: "17.0")
    }
  }

  @Test func aCoveringViewCutsBothSidesOff() {
    // A 640x480 frame covers a 1000x1000 view: 2.083 points for one pixel, 166.7 of them beyond the left edge.
    let map = ViewMap(photograph: (640, 480), view: (1000, 1000), fill: true, mirrored: false)
    #expect(map.scale == 1000.0 / 480)
    #expect([map.x(320), map.x(0), map.y(0), map.y(480)].map { $0.rounded() } == [500, -167, 0, 1000])
  }

  @Test func aViewThatShowsAllLeavesBars() {
    let map = ViewMap(photograph: (640, 480), view: (1000, 1000), fill: false, mirrored: false)
    #expect([map.x(0), map.x(640), map.y(0), map.y(480)] == [0, 1000, 125, 875])
  }

  @Test func theFrontCameraIsAMirror() {
    let map = ViewMap(photograph: (100, 50), view: (200, 100), fill: true, mirrored: true)
    #expect([map.x(0), map.x(100), map.x(10), map.y(10)] == [200, 0, 180, 20])  // up stays up
  }

  @Test func theMeanForgetsOldValues() {
    var mean = RollingMean(size: 3)
    #expect(mean.mean == 0)
    mean.add(3)
    #expect(mean.mean == 3)
    for value in [100.0, 1, 2, 6] { mean.add(value) }
    #expect(mean.mean == 3)
  }

  @Test func outputsOfAnotherSizeAreNoFaces() throws {
    let anchors = try makeAnchors(height: 32, width: 32, strides: [8], minSizes: [[16]])
    let postprocessor = Postprocessor(anchors: anchors, variances: [0.1, 0.2], thresholds: Thresholds())
    #expect(throws: FormatError.self) { try postprocessor.run(Outputs(), scaleX: 1, scaleY: 1) }
  }

  @Test func anchorsWithoutSizesAreRefused() {
    #expect(throws: FormatError.self) { try makeAnchors(height: 32, width: 32, strides: [8, 16], minSizes: [[16]]) }
    #expect(throws: FormatError.self) { try makeAnchors(height: 32, width: 32, strides: [0], minSizes: [[16]]) }
  }

  @Test func errorsSayWhere() throws {
    let text = try Golden.read("manifest.json").cases[0]["text"].string
    func message(_ before: String, _ after: String) -> String {
      do {
        _ = try Manifest(json: text.replacing([(before, after)]))
        return "none"
      } catch {
        return "\(error)"
      }
    }
    #expect(message("\"top_k\":5000", "\"top_k\":\"5000\"") == "thresholds.top_k: a number expected")
    #expect(
      message("\"meaning\":\"scores\"", "\"meaning\":\"mask\"")
        == "outputs[0].meaning: one of scores, box_deltas, landmark_deltas expected, not mask")
    #expect(message("\"variant\":\"acwface_dcn\",", "") == "variant: missing")
    #expect(message("{\"variant\"", "(\"variant\"").hasPrefix("no JSON: a value expected at byte 1"))
  }

  @Test func nothingEndlessIsRead() {
    #expect(throws: FormatError.self) { try Json(String(repeating: "[", count: 100_000)) }
  }

  @Test func jsonHasNoNumberForInfinity() throws {
    #expect(throws: FormatError.self) { try Json.number(Double.infinity).text() }
    let json = Json.object([("a", .array([.number(1), .string("\n\"\\é")])), ("b", .object([])), ("c", .bool(true)), ("d", .number(1e-7))])
    #expect(try json.text() == #"{"a":[1,"\u000a\"\\é"],"b":{},"c":true,"d":1e-07}"#)
    #expect(try Json(json.text()) == json)
  }

  @Test func aListingIsWhatSha256sumPrints() {
    // In order of bytes: capitals come first.
    let files = [("b/c", "2"), ("b", "1"), ("B", "0")].map { (path: $0.0, sha256: $0.1) }
    #expect(listing(of: files) == "0  B\n1  b\n2  b/c\n")
  }

  @Test func arraysWithGapsAreCopied() {
    // Two rows of three, each row eight floats long, as Core ML pads them.
    let floats = Floats((0..<16).map(Float.init), shape: [1, 2, 3], strides: [16, 8, 1])
    var array: [Float] = []
    floats.tensor.copy(to: &array)
    #expect(array == [0, 1, 2, 8, 9, 10])
  }

  @Test func differencesOfScoresAreFound() {
    var (one, other) = (Outputs(), Outputs())
    one.scores = [0.5, 0.25]
    other.scores = [0.5, 0.75]
    #expect(one.scoreDifference(from: other) == 0.5)
    other.scores = [0.5, .nan]
    #expect(one.scoreDifference(from: other) == .infinity)
    other.scores = [0.5]
    #expect(one.scoreDifference(from: other) == .infinity)
  }

  @Test func layersTakeTheShapesThatAreTheirs() throws {
    let layer = try DeformLayer(channels: 16, offsetLimit: 1, negativeSlope: 0.1)
    #expect(try layer.outputShape(predicted: [1, 5, 7, 27], mixed: [1, 5, 7, 144], bias: [16]) == [1, 5, 7, 16])
    #expect(throws: FormatError.self) { try layer.outputShape(predicted: [1, 5, 7, 27], mixed: [1, 5, 8, 144], bias: [16]) }
    #expect(throws: FormatError.self) { try layer.outputShape(predicted: [1, 5, 7, 26], mixed: [1, 5, 7, 144], bias: [16]) }
    #expect(throws: FormatError.self) { try layer.outputShape(predicted: [5, 7, 27], mixed: [5, 7, 144], bias: [16]) }
    #expect(throws: FormatError.self) { try DeformLayer(channels: 0, offsetLimit: 1, negativeSlope: 0.1) }
  }

  /// Offsets far beyond the image and of no number; arrays are exactly as long as they must be, for the sanitizers.
  @Test func layersReadNothingBeyondTheirArrays() throws {
    let special: [Float] = [0, 1, -1, 0.5, 1e9, -1e9, .nan, .infinity, -.infinity, 3e38]
    for (height, width, channels) in [(1, 1, 1), (3, 5, 17), (17, 19, 16)] {
      let pixels = height * width
      let predicted = Floats((0..<27 * pixels).map { special[$0 % special.count] }, shape: [1, height, width, 27])
      let mixed = Floats(Array(repeating: 1, count: 9 * channels * pixels), shape: [1, height, width, 9 * channels])
      let bias = Floats(Array(repeating: 0, count: channels), shape: [channels])
      for limit in [0.0, 1.0] {
        let layer = try DeformLayer(channels: channels, offsetLimit: limit, negativeSlope: 0.1)
        let results = try DeformLayer.kernels.map { kernel in
          let out = Floats(Array(repeating: 0, count: channels * pixels), shape: [1, height, width, channels])
          try layer.run(predicted: predicted.tensor, mixed: mixed.tensor, bias: bias.tensor, out: out.tensor, kernel: kernel)
          return out.array
        }
        for result in results { #expect(isClose(result, results.last!)) }  // the scalar one
      }
    }
  }

  @Test func arraysInAnotherOrderAreRefused() throws {
    let layer = try DeformLayer(channels: 1, offsetLimit: 0, negativeSlope: 1)
    let predicted = Floats(Array(repeating: 0, count: 108), shape: [1, 2, 2, 27])
    let bias = Floats([0], shape: [1])
    let out = Floats(Array(repeating: 0, count: 4), shape: [1, 2, 2, 1])
    let turned = Floats(Array(repeating: 0, count: 36), shape: [1, 2, 2, 9], strides: [36, 2, 1, 4])
    let gap = Floats(Array(repeating: 0, count: 45), shape: [1, 2, 2, 9], strides: [45, 27, 9, 1])
    for mixed in [turned, gap] {
      #expect(throws: FormatError.self) {
        try layer.run(predicted: predicted.tensor, mixed: mixed.tensor, bias: bias.tensor, out: out.tensor)
      }
    }
  }
}

extension String {
  /// The first occurrence of each.
  func replacing(_ changes: [(String, String)]) -> String {
    changes.reduce(self) { text, change in
      let range = text.range(of: change.0)!
      return text.replacingCharacters(in: range, with: change.1)
    }
  }
}
