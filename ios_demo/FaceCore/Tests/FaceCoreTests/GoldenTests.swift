import Testing

@testable import FaceCore

/// Replays what Python answers.
struct GoldenTests {
  @Test func letterbox() throws {
    for golden in try Golden.read("letterbox.json").cases {
      let (photograph, input) = (golden["photograph"].ints, golden["input"].ints)
      let letterbox = Letterbox(
        photographHeight: photograph[0], photographWidth: photograph[1], inputHeight: input[0], inputWidth: input[1])
      #expect([letterbox.height, letterbox.width] == golden["resized"].ints, "\(photograph) in \(input)")
      #expect([letterbox.scaleX, letterbox.scaleY] == golden["scale"].doubles, "\(photograph) in \(input)")
    }
  }

  @Test func preprocessing() throws {
    for golden in try Golden.read("preprocess.json").cases {
      let (photograph, input) = (golden["photograph"].ints, golden["input"].ints)
      var fields = try JsonFields(golden["spec"].value)
      let spec = try InputSpec(&fields)
      let letterboxer = Letterboxer(spec: spec)
      var picture = Pixels(height: input[0], width: input[1], extra: 12)
      var other = Pixels(height: 9, width: 9, extra: 0, fill: 77)
      _ = picture.with { picture in other.with { letterboxer.prepare($0, into: picture) } }  // leaves nothing behind
      var frame = Pixels(height: photograph[0], width: photograph[1], extra: 8)  // rows of camera frames have some more at their end
      frame.fill(seed: UInt32(golden["seed"].int))
      _ = picture.with { picture in frame.with { letterboxer.prepare($0, into: picture) } }
      #expect(picture.tensor(spec) == golden["tensor"].floats, "\(photograph) in \(input), \(spec.layout)")
    }
  }

  @Test func anchors() throws {
    let file = try Golden.read("anchors.json")
    for golden in file.cases {
      let spec = golden.find("strides") == nil ? file : golden
      let input = golden["input"].ints
      let anchors = try makeAnchors(
        height: input[0], width: input[1], strides: spec["strides"].ints, minSizes: spec["min_sizes"].list.map(\.ints))
      let values = anchors.map { [$0.x, $0.y, $0.width, $0.height] }
      #expect(values.count == golden["count"].int)
      for (index, expected) in zip(golden["indices"].ints, golden["anchors"].list) { #expect(values[index] == expected.floats) }
      #expect((0..<4).map { column in values.reduce(0) { $0 + Double($1[column]) } } == golden["sums"].doubles)
    }
  }

  @Test func suppression() throws {
    for golden in try Golden.read("nms.json").cases {
      let boxes = golden["boxes"].list.map(\.floats).map { Box(left: $0[0], top: $0[1], right: $0[2], bottom: $0[3]) }
      let order = ranked(golden["scores"].floats, above: -.infinity)
      let kept = suppress(order.map { boxes[$0] }, iou: golden["nms_iou"].double, keep: order.count).map { order[$0] }
      #expect(kept == golden["kept"].ints, "\(golden["name"].string)")
    }
  }

  @Test func detection() throws {
    let file = try Golden.read("detection.json")
    for golden in file.cases {
      let name = golden["name"].string
      let (input, scale) = (golden["input"].ints, golden["scale"].doubles)
      let hasLandmarks = golden.find("landmarks") == nil
      let strides = (golden.find("strides") == nil ? file : golden)["strides"].ints
      let anchors = try makeAnchors(height: input[0], width: input[1], strides: strides, minSizes: file["min_sizes"].list.map(\.ints))
      var outputs = Outputs()
      outputs.scores = Array(repeating: 0, count: anchors.count)
      outputs.boxDeltas = Array(repeating: 0, count: 4 * anchors.count)
      outputs.landmarkDeltas = Array(repeating: 0, count: hasLandmarks ? 10 * anchors.count : 0)
      for row in golden["outputs"].list {
        let anchor = row.list[0].int
        let values = row.floats.dropFirst()
        outputs.scores[anchor] = values[1]
        outputs.boxDeltas.replaceSubrange(4 * anchor..<4 * anchor + 4, with: values[2..<6])
        if hasLandmarks { outputs.landmarkDeltas.replaceSubrange(10 * anchor..<10 * anchor + 10, with: values[6..<16]) }
      }
      let postprocessor = Postprocessor(anchors: anchors, variances: file["variances"].doubles, thresholds: golden["thresholds"].thresholds)
      let faces = try postprocessor.run(outputs, scaleX: scale[0], scaleY: scale[1])
      let expected = golden["faces"].list.map(\.floats)
      try #require(faces.count == expected.count, "\(name)")
      for (face, values) in zip(faces, expected) {
        #expect(face.score == values[0], "\(name)")
        #expect(isClose([face.box.left, face.box.top, face.box.right, face.box.bottom], Array(values[1..<5])), "\(name): \(face.box)")
        #expect(isClose(face.landmarks.flatMap { [$0.x, $0.y] }, Array(values[5...])), "\(name): \(face.landmarks)")
      }
    }
  }

  @Test func manifestsArePythonAcceptedOnesOnly() throws {
    for golden in try Golden.read("manifest.json").cases {
      let (name, text) = (golden["name"].string, golden["text"].string)
      if golden["accepted"].bool {
        #expect(throws: Never.self, "\(name)") { try Manifest(json: text) }
      } else {
        #expect(throws: FormatError.self, "\(name)") { try Manifest(json: text) }
      }
    }
  }

  @Test func everyFieldOfAManifestIsRead() throws {
    let file = try Golden.read("manifest.json")
    let expected = file["manifest"]
    let manifest = try Manifest(json: file.cases.first { $0["name"].string == "as written" }!["text"].string)
    #expect(manifest.variant == expected["variant"].string)
    #expect(manifest.dcn == expected["dcn"].string)
    #expect(manifest.precision == expected["precision"].string)
    #expect(manifest.format == expected["format"].string)
    #expect(manifest.weights == expected["weights"].string)
    for (name, file) in [("model", manifest.model), ("reference", manifest.reference)] {
      #expect(file.name == expected[name]["name"].string)
      #expect(file.sha256 == expected[name]["sha256"].string)
      #expect(file.sizeBytes == expected[name]["size_bytes"].int)
    }
    let input = expected["input"]
    #expect(manifest.input.name == input["name"].string)
    #expect(manifest.input.dtype.rawValue == input["dtype"].string)
    #expect(manifest.input.shape == input["shape"].ints)
    #expect([manifest.input.height, manifest.input.width] == [input["shape"].ints[1], input["shape"].ints[2]])
    #expect(manifest.input.spec.mean == input["mean"].doubles)
    #expect(manifest.input.spec.scale == input["scale"].double)
    #expect(manifest.input.spec.colourOrder.rawValue == input["colour_order"].string)
    #expect(manifest.input.spec.layout.rawValue == input["layout"].string)
    #expect(manifest.outputs.count == 3)
    for (output, wanted) in zip(manifest.outputs, expected["outputs"].list) {
      #expect(output.name == wanted["name"].string)
      #expect(output.meaning.rawValue == wanted["meaning"].string)
      #expect(output.shape == wanted["shape"].ints)
    }
    #expect(manifest.anchors.strides == expected["anchors"]["strides"].ints)
    #expect(manifest.anchors.minSizes == expected["anchors"]["min_sizes"].list.map(\.ints))
    #expect(manifest.anchors.variances == expected["anchors"]["variances"].doubles)
    let thresholds = expected["thresholds"].thresholds
    #expect(manifest.thresholds.score == thresholds.score)
    #expect(manifest.thresholds.nmsIou == thresholds.nmsIou)
    #expect(manifest.thresholds.topK == thresholds.topK)
    #expect(manifest.thresholds.keep == thresholds.keep)
    let runtime = expected["runtime"]
    #expect(manifest.runtime.name == runtime["name"].string)
    #expect(manifest.runtime.minimumVersion == runtime["minimum_version"].string)
    #expect(manifest.runtime.library?.name == runtime["library"]["name"].string)
    #expect(manifest.runtime.library?.version == runtime["library"]["version"].string)
    let (parity, wanted) = (try #require(manifest.parity), expected["parity"])
    #expect([parity.scores, parity.boxesPx, parity.landmarksPx] == ["scores", "boxes_px", "landmarks_px"].map { wanted[$0].double })
    #expect([parity.anchors, parity.photographs] == ["anchors", "photographs"].map { wanted[$0].int })
  }

  /// The example has Python's defaults.
  @Test func whatIsLeftOutHasPythonsDefault() throws {
    let file = try Golden.read("manifest.json")
    let text = file.cases[0]["text"].string
    let short = try Manifest(
      json: text.replacing([
        (#""score":0.5,"nms_iou":0.4,"top_k":5000,"keep":750"#, ""), (#""mean":[104.0,117.0,123.0],"scale":1.0,"colour_order":"BGR","#, ""),
        (#""name":"image","dtype":"float32","#, ""),
      ]))
    let (input, thresholds) = (file["manifest"]["input"], file["manifest"]["thresholds"])
    #expect([short.thresholds.score, short.thresholds.nmsIou] == [thresholds["score"].double, thresholds["nms_iou"].double])
    #expect([short.thresholds.topK, short.thresholds.keep] == [thresholds["top_k"].int, thresholds["keep"].int])
    #expect(short.input.spec.mean == input["mean"].doubles)
    #expect(short.input.spec.scale == input["scale"].double)
    #expect(short.input.spec.colourOrder.rawValue == input["colour_order"].string)
    #expect(short.input.name == input["name"].string)
    #expect(short.input.dtype.rawValue == input["dtype"].string)
  }

  @Test func theBenchmarkWritesTheHarnessRecord() throws {
    let file = try Golden.read("record.json")
    let expected = file["records"].list[0]
    let manifest = try Manifest(json: try Golden.read("manifest.json").cases[0]["text"].string)
    let input = expected["latency_input"].ints
    let record = BenchmarkRecord(
      artifact: expected["artifact"].string, manifest: manifest, runtimeVersion: expected["runtime_version"].string,
      device: expected["device"].string, machine: expected["machine"].string, threads: expected["threads"].int,
      loadMs: expected["load_ms"].double,
      latency: Latency(times: file["times_ms"].doubles, warmup: expected["latency_ms"]["warmup"].int), inputHeight: input[0],
      inputWidth: input[1], peakMemoryBytes: expected["peak_memory_bytes"].int)
    #expect(try Golden.parse(record.json()).value == file["records"].value)
  }

  /// The custom layer's operator, by every form of the kernel that this processor has.
  @Test func deformableLayers() throws {
    for golden in try Golden.read("deform.json").cases {
      let (size, channels) = (golden["size"].ints, golden["channels"].int)
      let layer = try DeformLayer(
        channels: channels, offsetLimit: golden["offset_limit"].double, negativeSlope: golden["negative_slope"].double)
      let predicted = Floats(golden["predicted"].floats, shape: [1, size[0], size[1], 27])
      let mixed = Floats(golden["mixed"].floats, shape: [1, size[0], size[1], 9 * channels])
      let bias = Floats(golden["bias"].floats, shape: [channels])
      for kernel in DeformLayer.kernels {
        let out = Floats(Array(repeating: 77, count: size[0] * size[1] * channels), shape: [1, size[0], size[1], channels])
        try layer.run(predicted: predicted.tensor, mixed: mixed.tensor, bias: bias.tensor, out: out.tensor, kernel: kernel)
        #expect(isClose(out.array, golden["out"].floats), "\(size), \(channels) channels, \(String(cString: kernel.name))")
      }
    }
  }
}
