package acwface.core

/** What this reader understands; a newer contract might be misread. */
const val SCHEMA = 1

/** `detector.json`: how a model file is fed and read. `model/artifact.py` defines every field. */
class Manifest(
    val variant: String,
    val dcn: String,
    val precision: String,
    val format: String,
    val weights: String,
    val model: ModelFile,
    val reference: ModelFile,
    val input: InputTensor,
    /** In the order in which the model file gives them. */
    val outputs: List<OutputTensor>,
    val anchors: AnchorSpec,
    val thresholds: Thresholds,
    val runtime: RuntimeSpec,
    val parity: Parity?,
) {
    /** Networks that detect only have no output for them. */
    val hasLandmarks: Boolean get() = outputs.any { it.meaning == "landmark_deltas" }
}

/** A file of the artifact, by name, with what it must be. */
class ModelFile(val name: String, val sha256: String, val sizeBytes: Long)

/** How pixels become numbers. */
class InputSpec(
    /** Subtracted from the 0 to 255 values, in [colourOrder]; also the colour of the letterbox's border. */
    val mean: List<Double>,
    /** Multiplied in after the mean. */
    val scale: Double,
    val colourOrder: String,
    /** Order in memory: NCHW, planes, or NHWC, pixels. */
    val layout: String,
)

/** The network's only input: float32, or, in formats of other runtimes, a picture. */
class InputTensor(val name: String, val spec: InputSpec, val shape: List<Int?>) {
    /** Pixels; null where any height goes. */
    val height: Int? get() = shape[spec.layout.indexOf('H')]
    val width: Int? get() = shape[spec.layout.indexOf('W')]
}

/** One output of the network, float32, a row for each anchor. */
class OutputTensor(val name: String, val meaning: String, val shape: List<Int?>)

/** Arguments of [makeAnchors], and the box coding's variances. */
class AnchorSpec(val strides: List<Int>, val minSizes: List<List<Int>>, val variances: List<Double>)

/** What is kept of the network's answers. */
class Thresholds(
    val score: Double = 0.5,
    val nmsIou: Double = 0.4,
    /** Candidates that enter non-maximum suppression. */
    val topK: Int = 5000,
    /** Faces that leave it. */
    val keep: Int = 750,
)

/** A library with operators that the runtime does not have; [name] is the file's, without `lib` and suffix. */
class Library(val name: String, val version: String)

/** What has to be there to run the model file. */
class RuntimeSpec(val name: String, val minimumVersion: String, val library: Library?)

/** Largest differences from the FP32 torch model, measured when the artifact was made. */
class Parity(val scores: Double, val boxesPx: Double, val landmarksPx: Double, val anchors: Int, val photographs: Int)

/**
 * Reads `detector.json`: what `open_artifact` of Python refuses is refused.
 *
 * @throws FormatException no JSON, of a newer schema, a field missing, unknown or of the wrong type.
 */
fun readManifest(text: String): Manifest {
    val fields = JsonFields(JsonParser(text).parse(), "")
    val schema = fields.int("schema")
    if (schema > SCHEMA) throw FormatException("schema $schema; this app reads up to $SCHEMA: update it, or export again")
    val manifest =
        Manifest(
            variant = fields.string("variant"),
            dcn = fields.string("dcn"),
            precision = fields.string("precision"),
            format = fields.string("format"),
            weights = fields.string("weights"),
            model = fields.fields("model", ::readFile),
            reference = fields.fields("reference", ::readFile),
            input = fields.fields("input", ::readInput),
            outputs = fields.fieldsList("outputs", ::readOutput),
            anchors = fields.fields("anchors", ::readAnchors),
            thresholds = fields.fields("thresholds", ::readThresholds),
            runtime = fields.fields("runtime", ::readRuntime),
            parity = if (fields.isNull("parity")) null else fields.fields("parity", ::readParity),
        )
    fields.close()
    if (manifest.outputs.map { it.meaning }.sorted() !in listOf(MEANINGS.sorted(), MEANINGS.dropLast(1).sorted())) {
        throw FormatException("outputs: ${MEANINGS.joinToString()} expected, each once; the last may be missing")
    }
    return manifest
}

private val MEANINGS = listOf("scores", "box_deltas", "landmark_deltas")

private fun readFile(fields: JsonFields): ModelFile {
    val name = fields.string("name")
    // A path, perhaps out of the folder.
    if (name in listOf("", ".", "..") || '/' in name || '\\' in name) fields.fail("name", "a plain file name expected, not $name")
    return ModelFile(name, fields.string("sha256"), fields.long("size_bytes"))
}

// Defaults as in Python, which leaves out nothing but reads files that do.
private fun readInput(fields: JsonFields): InputTensor {
    val spec =
        InputSpec(
            mean = if (fields.has("mean")) fields.doubles("mean") else listOf(104.0, 117.0, 123.0),
            scale = if (fields.has("scale")) fields.double("scale") else 1.0,
            colourOrder = if (fields.has("colour_order")) fields.oneOf("colour_order", "BGR", "RGB") else "BGR",
            layout = if (fields.has("layout")) fields.oneOf("layout", "NCHW", "NHWC") else "NCHW",
        )
    if (spec.mean.size != 3) fields.fail("mean", "three numbers expected")
    if (fields.has("dtype")) fields.oneOf("dtype", "float32", "image")
    val shape = if (fields.has("shape")) fields.shape("shape") else listOf(1, 3, null, null)
    if (shape.size != 4) fields.fail("shape", "four axes expected")
    return InputTensor(if (fields.has("name")) fields.string("name") else "image", spec, shape)
}

private fun readOutput(fields: JsonFields): OutputTensor {
    if (fields.has("dtype")) fields.oneOf("dtype", "float32")
    return OutputTensor(fields.string("name"), fields.oneOf("meaning", *MEANINGS.toTypedArray()), fields.shape("shape"))
}

private fun readAnchors(fields: JsonFields): AnchorSpec {
    val anchors = AnchorSpec(fields.ints("strides"), fields.intLists("min_sizes"), fields.doubles("variances"))
    if (anchors.variances.size != 2) fields.fail("variances", "two numbers expected")
    return anchors
}

private fun readThresholds(fields: JsonFields): Thresholds {
    val default = Thresholds()
    return Thresholds(
        score = if (fields.has("score")) fields.double("score") else default.score,
        nmsIou = if (fields.has("nms_iou")) fields.double("nms_iou") else default.nmsIou,
        topK = if (fields.has("top_k")) fields.int("top_k") else default.topK,
        keep = if (fields.has("keep")) fields.int("keep") else default.keep,
    )
}

private fun readRuntime(fields: JsonFields): RuntimeSpec {
    val library = if (!fields.has("library") || fields.isNull("library")) null else fields.fields("library", ::readLibrary)
    return RuntimeSpec(fields.string("name"), fields.string("minimum_version"), library)
}

private fun readLibrary(fields: JsonFields) = Library(fields.string("name"), fields.string("version"))

private fun readParity(fields: JsonFields) =
    Parity(
        fields.double("scores"),
        fields.double("boxes_px"),
        fields.double("landmarks_px"),
        fields.int("anchors"),
        fields.int("photographs"),
    )

/** Whether version [have] is [need] or newer: numbers between dots, compared one by one. */
fun isAtLeast(have: String, need: String): Boolean {
    fun parts(version: String) = version.split('.').map { part -> part.takeWhile { it in '0'..'9' }.toIntOrNull() ?: 0 }
    val left = parts(have)
    val right = parts(need)
    for (index in 0 until maxOf(left.size, right.size)) {
        val difference = left.getOrElse(index) { 0 } - right.getOrElse(index) { 0 }
        if (difference != 0) return difference > 0
    }
    return true
}
