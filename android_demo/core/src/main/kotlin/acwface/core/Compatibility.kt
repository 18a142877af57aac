package acwface.core

/** Why an artifact cannot be run here. */
enum class Problem {
    /** Of another runtime's format. */
    FORMAT,

    /** Made for a newer runtime. */
    RUNTIME,

    /** Operators that the app has no library for. */
    LIBRARY,

    /** The library is not the one that the artifact was made with. */
    LIBRARY_VERSION,

    /** No fixed input size, or not one image with three channels. */
    INPUT,

    /** Not one output of each meaning, landmarks being optional, with a row for each anchor. */
    OUTPUTS,
}

/** What stands in the way, and the two things that do not agree. */
class Incompatibility(val problem: Problem, val needed: String, val present: String)

/**
 * Checks an artifact against a TFLite runtime.
 *
 * @param runtimeVersion of LiteRT.
 * @param libraries version of each library of operators that the app has, by name.
 * @return null where nothing stands in the way.
 */
fun incompatibility(manifest: Manifest, runtimeVersion: String, libraries: Map<String, String>): Incompatibility? {
    if (manifest.format != "tflite" || manifest.runtime.name != "litert") {
        return Incompatibility(Problem.FORMAT, "${manifest.format}, ${manifest.runtime.name}", "tflite, litert")
    }
    if (!isAtLeast(runtimeVersion, manifest.runtime.minimumVersion)) {
        return Incompatibility(Problem.RUNTIME, manifest.runtime.minimumVersion, runtimeVersion)
    }
    val library = manifest.runtime.library
    if (library != null) {
        val version = libraries[library.name] ?: return Incompatibility(Problem.LIBRARY, "${library.name} ${library.version}", "-")
        if (!serves(version, library.version)) return Incompatibility(Problem.LIBRARY_VERSION, library.version, version)
    }
    val height = manifest.input.height
    val width = manifest.input.width
    val layout = manifest.input.spec.layout
    val batchAndChannels = listOf(manifest.input.shape[layout.indexOf('N')], manifest.input.shape[layout.indexOf('C')])
    if (height == null || width == null || batchAndChannels != listOf(1, 3)) {
        return Incompatibility(Problem.INPUT, manifest.input.shape.toString(), "1 x H x W x 3")
    }
    val rows = makeAnchors(height, width, manifest.anchors.strides, manifest.anchors.minSizes).size / ANCHOR_VALUES
    val boxes = mapOf("scores" to listOf(1, rows), "box_deltas" to listOf(1, rows, Faces.BOX))
    val expected = if (manifest.hasLandmarks) boxes + ("landmark_deltas" to listOf(1, rows, Faces.LANDMARKS)) else boxes
    val actual = manifest.outputs.associate { it.meaning to it.shape }
    val fits = manifest.outputs.size == expected.size && actual == expected
    return if (fits) null else Incompatibility(Problem.OUTPUTS, actual.toString(), expected.toString())
}

/** Whether a library of version [have] has what version [need] had: operators are added while the first number stays. */
private fun serves(have: String, need: String) = isAtLeast(have, need) && have.substringBefore('.') == need.substringBefore('.')
