/// What this reader understands; a newer contract might be misread.
public let schema = 1

/// `detector.json`: how a model file is fed and read. `model/artifact.py` defines every field.
public struct Manifest: Sendable {
  public let variant, dcn, precision, format, weights: String
  public let model, reference: ModelFile
  public let input: InputTensor

  /// In the order in which the model file gives them.
  public let outputs: [OutputTensor]
  public let anchors: AnchorSpec
  public let thresholds: Thresholds
  public let runtime: RuntimeSpec
  public let parity: Parity?
}

/// A file or folder of the artifact, by name, with what it must be.
public struct ModelFile: Sendable {
  public let name: String

  /// Of a file's bytes; of a folder's ``listing(of:)``.
  public let sha256: String
  public let sizeBytes: Int
}

public enum ColourOrder: String, Sendable, CaseIterable {
  case bgr = "BGR"
  case rgb = "RGB"
}

/// Order in memory: planes, or pixels.
public enum Layout: String, Sendable, CaseIterable {
  case planes = "NCHW"
  case pixels = "NHWC"
}

public enum InputType: String, Sendable, CaseIterable {
  case float32

  /// The model file takes a picture and itself does what ``InputSpec`` says.
  case image
}

public enum Meaning: String, Sendable, CaseIterable {
  case scores
  case boxDeltas = "box_deltas"
  case landmarkDeltas = "landmark_deltas"
}

/// How pixels become numbers.
public struct InputSpec: Sendable {
  /// Subtracted from the 0 to 255 values, in ``colourOrder``; also the colour of the letterbox's border. Three.
  public let mean: [Double]

  /// Multiplied in after the mean.
  public let scale: Double
  public let colourOrder: ColourOrder
  public let layout: Layout
}

/// The network's only input.
public struct InputTensor: Sendable {
  public let name: String
  public let dtype: InputType
  public let spec: InputSpec

  /// Four axes; nil where any length goes.
  public let shape: [Int?]

  /// Pixels; nil where any height goes.
  public var height: Int? { shape[spec.layout == .planes ? 2 : 1] }

  /// Pixels; nil where any width goes.
  public var width: Int? { shape[spec.layout == .planes ? 3 : 2] }

  var isOneColourImage: Bool { shape[0] == 1 && shape[spec.layout == .planes ? 1 : 3] == 3 }
}

/// One output of the network, float32, a row for each anchor.
public struct OutputTensor: Sendable {
  public let name: String
  public let meaning: Meaning
  public let shape: [Int?]
}

/// Arguments of ``makeAnchors(height:width:strides:minSizes:)``, and the box coding's variances, which are two.
public struct AnchorSpec: Sendable {
  public let strides: [Int]
  public let minSizes: [[Int]]
  public let variances: [Double]
}

/// What is kept of the network's answers.
public struct Thresholds: Sendable {
  public var score = 0.5
  public var nmsIou = 0.4

  /// Candidates that enter non-maximum suppression.
  public var topK = 5000

  /// Faces that leave it.
  public var keep = 750

  public init() {}
}

/// A library with operators that the runtime does not have.
public struct Library: Sendable {
  public let name, version: String
}

/// What has to be there to run the model file.
public struct RuntimeSpec: Sendable {
  public let name: String

  /// Of Core ML: of iOS.
  public let minimumVersion: String
  public let library: Library?
}

/// Largest differences from the FP32 torch model, measured when the artifact was made.
public struct Parity: Sendable {
  public let scores, boxesPx, landmarksPx: Double
  public let anchors, photographs: Int
}

extension Manifest {
  /// Reads `detector.json`: what `open_artifact` of Python refuses is refused.
  ///
  /// - Throws: ``FormatError``: no JSON, of a newer schema, a field missing, unknown or of the wrong type.
  public init(json text: String) throws {
    self = try JsonFields.read(try Json(text)) { fields in
      let version = try fields.int("schema")
      guard version <= schema else {
        throw FormatError("schema \(version); this app reads up to \(schema): update it, or export again")
      }
      let manifest = Manifest(
        variant: try fields.string("variant"),
        dcn: try fields.string("dcn"),
        precision: try fields.string("precision"),
        format: try fields.string("format"),
        weights: try fields.string("weights"),
        model: try fields.fields("model", ModelFile.init),
        reference: try fields.fields("reference", ModelFile.init),
        input: try fields.fields("input", InputTensor.init),
        outputs: try fields.fieldsList("outputs", OutputTensor.init),
        anchors: try fields.fields("anchors", AnchorSpec.init),
        thresholds: try fields.fields("thresholds", Thresholds.init),
        runtime: try fields.fields("runtime", RuntimeSpec.init),
        parity: try fields.isNull("parity") ? nil : try fields.fields("parity", Parity.init)
      )
      let meanings = Meaning.allCases
      guard [meanings, meanings.dropLast()].map(Set.init).contains(Set(manifest.outputs.map(\.meaning))),
        Set(manifest.outputs.map(\.meaning)).count == manifest.outputs.count
      else {
        let names = meanings.map(\.rawValue).joined(separator: ", ")
        throw FormatError("outputs: \(names) expected, each once; the last may be missing")
      }
      return manifest
    }
  }
}

extension ModelFile {
  init(_ fields: inout JsonFields) throws {
    name = try fields.string("name")
    // A path, perhaps out of the folder.
    if ["", ".", ".."].contains(name) || name.contains("/") || name.contains("\\") {
      throw fields.failure("name", "a plain file name expected, not \(name)")
    }
    sha256 = try fields.string("sha256")
    sizeBytes = try fields.int("size_bytes")
  }
}

// Defaults as in Python, which leaves out nothing but reads files that do.
extension InputTensor {
  init(_ fields: inout JsonFields) throws {
    spec = try InputSpec(&fields)
    guard spec.mean.count == 3 else { throw fields.failure("mean", "three numbers expected") }
    dtype = fields.has("dtype") ? try fields.word("dtype") : .float32
    shape = fields.has("shape") ? try fields.shape("shape") : [1, 3, nil, nil]
    guard shape.count == 4 else { throw fields.failure("shape", "four axes expected") }
    name = fields.has("name") ? try fields.string("name") : "image"
  }
}

extension InputSpec {
  init(_ fields: inout JsonFields) throws {
    mean = fields.has("mean") ? try fields.doubles("mean") : [104, 117, 123]
    scale = fields.has("scale") ? try fields.double("scale") : 1
    colourOrder = fields.has("colour_order") ? try fields.word("colour_order") : .bgr
    layout = fields.has("layout") ? try fields.word("layout") : .planes
  }
}

extension OutputTensor {
  init(_ fields: inout JsonFields) throws {
    if fields.has("dtype"), try fields.word("dtype", as: InputType.self) != .float32 { throw fields.failure("dtype", "float32 expected") }
    name = try fields.string("name")
    meaning = try fields.word("meaning")
    shape = try fields.shape("shape")
  }
}

extension AnchorSpec {
  init(_ fields: inout JsonFields) throws {
    strides = try fields.ints("strides")
    minSizes = try fields.intLists("min_sizes")
    variances = try fields.doubles("variances")
    guard variances.count == 2 else { throw fields.failure("variances", "two numbers expected") }
  }
}

extension Thresholds {
  init(_ fields: inout JsonFields) throws {
    if fields.has("score") { score = try fields.double("score") }
    if fields.has("nms_iou") { nmsIou = try fields.double("nms_iou") }
    if fields.has("top_k") { topK = try fields.int("top_k") }
    if fields.has("keep") { keep = try fields.int("keep") }
  }
}

extension RuntimeSpec {
  init(_ fields: inout JsonFields) throws {
    let hasLibrary = try fields.has("library") && !fields.isNull("library")
    library = hasLibrary ? try fields.fields("library", Library.init) : nil
    name = try fields.string("name")
    minimumVersion = try fields.string("minimum_version")
  }
}

extension Library {
  init(_ fields: inout JsonFields) throws {
    name = try fields.string("name")
    version = try fields.string("version")
  }
}

extension Parity {
  init(_ fields: inout JsonFields) throws {
    scores = try fields.double("scores")
    boxesPx = try fields.double("boxes_px")
    landmarksPx = try fields.double("landmarks_px")
    anchors = try fields.int("anchors")
    photographs = try fields.int("photographs")
  }
}

/// The text whose SHA-256 is a folder's digest, as `model/files.py` has it: what `sha256sum` prints for its files, by relative path in order
/// of bytes.
public func listing(of files: [(path: String, sha256: String)]) -> String {
  files.sorted { $0.path.utf8.lexicographicallyPrecedes($1.path.utf8) }.map { "\($0.sha256)  \($0.path)\n" }.joined()
}
