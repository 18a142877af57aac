package acwface.core

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

/** What has no vectors. */
class CoreTest {
    @Test
    fun versionsAreComparedByTheirNumbers() {
        assertTrue(isAtLeast("2.3.0", "2.3.0"))
        assertTrue(isAtLeast("2.10.0", "2.9.1"))
        assertTrue(isAtLeast("3", "2.9.1"))
        assertTrue(isAtLeast("2.3", "2.3.0"))
        assertTrue(isAtLeast("2.3.0-rc1", "2.3.0"))
        assertFalse(isAtLeast("2.1.2", "2.3.0"))
        assertFalse(isAtLeast("2.3", "2.3.1"))
    }

    @Test
    fun whatCannotRunIsSaid() {
        val text = Golden.read("manifest.json").cases.first()["text"].string
        val libraries = mapOf("acwface_litert" to "1.1.1")

        fun problem(
            before: String = "",
            after: String = "",
            runtime: String = "2.3.0",
            libraries: Map<String, String> = mapOf("acwface_litert" to "1.1.1"),
        ) =
            incompatibility(readManifest(text.replaceFirst(before, after)), runtime, libraries)?.problem

        assertEquals(null, problem(libraries = libraries))
        assertEquals(Problem.FORMAT, problem("tflite", "onnx"))
        assertEquals(Problem.RUNTIME, problem(runtime = "2.1.1"))
        assertEquals(Problem.LIBRARY, problem(libraries = emptyMap()))
        assertEquals(Problem.LIBRARY_VERSION, problem(libraries = mapOf("acwface_litert" to "1.1.0")))
        assertEquals(Problem.LIBRARY_VERSION, problem(libraries = mapOf("acwface_litert" to "2.1.1")))
        assertEquals(null, problem(libraries = mapOf("acwface_litert" to "1.2.0")))
        assertEquals(Problem.INPUT, problem("[1,480,640,3]", "[1,null,640,3]"))
        assertEquals(Problem.INPUT, problem("[1,480,640,3]", "[2,480,640,3]"))
        assertEquals(Problem.OUTPUTS, problem("[1,480,640,3]", "[1,640,640,3]"))
        assertEquals(Problem.OUTPUTS, problem("[1,12600,4]", "[1,12600,5]"))
        assertEquals(Problem.OUTPUTS, problem("[1,12600,10]", "[1,12600,4]"))
    }

    @Test
    fun networksThatDetectOnlyRun() {
        val text = Golden.read("manifest.json").cases.first { it["name"].string == "no landmarks" }["text"].string
        val manifest = readManifest(text)
        assertFalse(manifest.hasLandmarks)
        val libraries = mapOf("acwface_litert" to "1.1.1")
        assertEquals(null, incompatibility(manifest, "2.3.0", libraries))
        assertEquals(
            Problem.OUTPUTS,
            incompatibility(readManifest(text.replaceFirst("[1,12600,4]", "[1,12600,10]")), "2.3.0", libraries)?.problem,
        )
    }

    @Test
    fun aCoveringViewCutsBothSidesOff() {
        // A 640x480 frame covers a 1000x1000 view: 2.083 view pixels for one, 166.7 of them beyond the left edge.
        val map = ViewMap().apply { set(640, 480, 1000, 1000, fill = true, mirrored = false) }
        assertEquals(1000f / 480, map.scale)
        assertEquals(500f, map.x(320f), 1e-3f)
        assertEquals(500f - 320 * 1000f / 480, map.x(0f), 1e-3f)
        assertEquals(0f, map.y(0f), 1e-3f)
        assertEquals(1000f, map.y(480f), 1e-3f)
    }

    @Test
    fun aViewThatShowsAllLeavesBars() {
        val map = ViewMap().apply { set(640, 480, 1000, 1000, fill = false, mirrored = false) }
        assertEquals(listOf(0f, 1000f, 125f, 875f), listOf(map.x(0f), map.x(640f), map.y(0f), map.y(480f)))
    }

    @Test
    fun theFrontCameraIsAMirror() {
        val map = ViewMap().apply { set(100, 50, 200, 100, fill = true, mirrored = true) }
        assertEquals(listOf(200f, 0f, 180f), listOf(map.x(0f), map.x(100f), map.x(10f)))
        assertEquals(20f, map.y(10f)) // up stays up
    }

    @Test
    fun theMeanForgetsOldValues() {
        val mean = RollingMean(3)
        assertEquals(0.0, mean.mean)
        mean.add(3.0)
        assertEquals(3.0, mean.mean)
        for (value in listOf(100.0, 1.0, 2.0, 6.0)) mean.add(value)
        assertEquals(3.0, mean.mean)
        repeat(100) { mean.add(7.0) }
        assertEquals(7.0, mean.mean)
        mean.clear()
        assertEquals(0.0, mean.mean)
    }

    @Test
    fun outputsOfAnotherSizeAreNoFaces() {
        val postprocessor = Postprocessor(makeAnchors(32, 32, listOf(8), listOf(listOf(16))), listOf(0.1, 0.2), Thresholds())
        assertFailsWith<IllegalArgumentException> { postprocessor.run(FloatArray(15), FloatArray(60), FloatArray(150), 1.0, 1.0) }
    }

    @Test
    fun anchorsWithoutSizesAreRefused() {
        assertFailsWith<FormatException> { makeAnchors(32, 32, listOf(8, 16), listOf(listOf(16))) }
        assertFailsWith<FormatException> { makeAnchors(32, 32, listOf(0), listOf(listOf(16))) }
    }

    @Test
    fun errorsSayWhere() {
        val text = Golden.read("manifest.json").cases.first()["text"].string
        fun message(
            before: String,
            after: String,
        ) = assertFailsWith<FormatException> { readManifest(text.replaceFirst(before, after)) }.message

        assertEquals("thresholds.top_k: a number expected", message("\"top_k\":5000", "\"top_k\":\"5000\""))
        assertEquals(
            "outputs[0].meaning: one of scores, box_deltas, landmark_deltas expected, not mask",
            message("\"meaning\":\"scores\"", "\"meaning\":\"mask\""),
        )
        assertEquals("variant: missing", message("\"variant\":\"acwface_dcn\",", ""))
        assertTrue(message("{", "(").orEmpty().startsWith("no JSON"))
    }

    @Test
    fun nothingEndlessIsRead() {
        assertFailsWith<FormatException> { JsonParser("[".repeat(100_000)).parse() }
    }

    @Test
    fun jsonHasNoNumberForInfinity() {
        assertFailsWith<FormatException> { writeJson(Double.POSITIVE_INFINITY) }
        assertEquals(
            "{\"a\":[1,\"\\u000a\\\"\\\\\"],\"b\":{},\"c\":[]}",
            writeJson(
                linkedMapOf(
                    "a" to listOf(1, "\n\"\\"),
                    "b" to emptyMap<String, Any>(),
                    "c" to emptyList<Int>(),
                ),
            ).toString(),
        )
    }

    @Test
    fun facesThatDoNotFitAreLeftOut() {
        val many = Faces(3).apply { count = 3 }
        many.scores[1] = 0.5f
        val few = Faces(2).apply { copyFrom(many) }
        assertEquals(2, few.count)
        assertEquals(0.5f, few.scores[1])
    }
}
