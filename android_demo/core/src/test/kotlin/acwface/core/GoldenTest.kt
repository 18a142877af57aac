package acwface.core

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

/** Replays what Python answers. */
class GoldenTest {
    @Test
    fun letterbox() {
        for (case in Golden.read("letterbox.json").cases) {
            val (photograph, input) = case["photograph"].ints to case["input"].ints
            val letterbox = Letterbox(photograph[0], photograph[1], input[0], input[1])
            assertEquals(case["resized"].ints, listOf(letterbox.height, letterbox.width), "$photograph in $input")
            assertEquals(case["scale"].doubles, listOf(letterbox.scaleX, letterbox.scaleY), "$photograph in $input")
        }
    }

    @Test
    fun preprocessing() {
        for (case in Golden.read("preprocess.json").cases) {
            val (height, width) = case["photograph"].ints
            val input = case["input"].ints
            val spec = case["spec"].fields.let {
                InputSpec(it.doubles("mean"), it.double("scale"), it.string("colour_order"), it.string("layout"))
            }
            val preprocessor = Preprocessor(spec, input[0], input[1])
            val stride = Preprocessor.PIXEL_BYTES * width + 8 // rows of camera frames have some more at their end
            preprocessor.prepare(ByteArray(4 * 9 * 9) { 77 }, 9, 9) // leaves nothing behind
            preprocessor.prepare(pixels(height, width, case["seed"].int, stride), height, width, stride)
            assertContentEquals(case["tensor"].floats, preprocessor.tensor, "${height}x$width in $input, ${spec.layout}")
        }
    }

    private fun pixels(height: Int, width: Int, seed: Int, stride: Int): ByteArray {
        var state = seed
        val rgba = ByteArray(height * stride) { -1 }
        for (row in 0 until height) {
            for (column in 0 until width) {
                for (channel in 0 until 3) {
                    state = 1664525 * state + 1013904223
                    rgba[row * stride + 4 * column + channel] = (state ushr 24).toByte()
                }
            }
        }
        return rgba
    }

    @Test
    fun anchors() {
        val file = Golden.read("anchors.json")
        for (case in file.cases) {
            val spec = if (case.has("strides")) case else file
            val (height, width) = case["input"].ints
            val anchors = makeAnchors(height, width, spec["strides"].ints, spec["min_sizes"].intLists)
            assertEquals(case["count"].int, anchors.size / ANCHOR_VALUES)
            for ((index, expected) in case["indices"].ints.zip(case["anchors"].list)) {
                assertContentEquals(expected.floats, anchors.copyOfRange(ANCHOR_VALUES * index, ANCHOR_VALUES * (index + 1)))
            }
            val sums = (0 until ANCHOR_VALUES).map { value ->
                anchors.indices.filter { it % ANCHOR_VALUES == value }.sumOf { anchors[it].toDouble() }
            }
            assertEquals(case["sums"].doubles, sums)
        }
    }

    @Test
    fun suppression() {
        for (case in Golden.read("nms.json").cases) {
            val (boxes, scores) = case["boxes"].list.map { it.floats } to case["scores"].floats
            val ranking = Ranking(scores.size)
            val count = ranking.rank(scores, scores.size, Float.NEGATIVE_INFINITY)
            val sorted = FloatArray(Faces.BOX * count) { boxes[ranking.index(it / Faces.BOX)][it % Faces.BOX] }
            val suppression = Suppression(count)
            val kept = (0 until suppression.run(sorted, count, case["nms_iou"].double, count)).map { ranking.index(suppression.kept[it]) }
            assertEquals(case["kept"].ints, kept, case["name"].string)
        }
    }

    @Test
    fun detection() {
        val file = Golden.read("detection.json")
        for (case in file.cases) {
            val name = case["name"].string
            val scene = Scene(file, case)
            val faces = scene.postprocessor.run(scene.scores, scene.boxDeltas, scene.landmarkDeltas, scene.scaleX, scene.scaleY)
            val expected = case["faces"].list.map { it.floats }
            assertEquals(expected.size, faces.count, name)
            for ((face, values) in expected.withIndex()) {
                assertEquals(values[0], faces.scores[face], "$name: score of face $face")
                assertClose(values.copyOfRange(1, 5), faces.boxes.copyOfRange(4 * face, 4 * face + 4), "$name: box of face $face")
                assertEquals(scene.hasLandmarks, faces.hasLandmarks, name)
                if (!scene.hasLandmarks) continue
                assertClose(
                    values.copyOfRange(5, 15),
                    faces.landmarks.copyOfRange(10 * face, 10 * face + 10),
                    "$name: landmarks of face $face",
                )
            }
        }
    }

    @Test
    fun manifestsArePythonAcceptedOnesOnly() {
        for (case in Golden.read("manifest.json").cases) {
            val name = case["name"].string
            if (case["accepted"].boolean) {
                readManifest(case["text"].string)
            } else {
                assertFailsWith<FormatException>(name) { readManifest(case["text"].string) }
            }
        }
    }

    @Test
    fun everyFieldOfAManifestIsRead() {
        val file = Golden.read("manifest.json")
        val manifest = readManifest(file.cases.first { it["name"].string == "as written" }["text"].string)
        val expected = file["manifest"]
        for ((name, value) in mapOf(
            "variant" to manifest.variant,
            "dcn" to manifest.dcn,
            "precision" to manifest.precision,
            "format" to manifest.format,
            "weights" to manifest.weights,
        )) {
            assertEquals(expected[name].string, value)
        }
        for ((name, read) in mapOf("model" to manifest.model, "reference" to manifest.reference)) {
            val file = expected[name]
            assertEquals(
                listOf(file["name"].string, file["sha256"].string, file["size_bytes"].int.toLong()),
                listOf(read.name, read.sha256, read.sizeBytes),
            )
        }
        val input = expected["input"]
        assertEquals(input["name"].string, manifest.input.name)
        assertEquals(input["shape"].ints, manifest.input.shape)
        assertEquals(input["shape"].ints.let { listOf(it[1], it[2]) }, listOf(manifest.input.height, manifest.input.width))
        assertEquals(input["mean"].doubles, manifest.input.spec.mean)
        assertEquals(input["scale"].double, manifest.input.spec.scale)
        assertEquals(
            listOf(input["colour_order"].string, input["layout"].string),
            manifest.input.spec.let {
                listOf(it.colourOrder, it.layout)
            },
        )
        for ((output, read) in expected["outputs"].list.zip(manifest.outputs)) {
            assertEquals(
                listOf(output["name"].string, output["meaning"].string, output["shape"].ints),
                listOf(read.name, read.meaning, read.shape),
            )
        }
        assertEquals(3, manifest.outputs.size)
        val anchors = expected["anchors"]
        assertEquals(anchors["strides"].ints, manifest.anchors.strides)
        assertEquals(anchors["min_sizes"].intLists, manifest.anchors.minSizes)
        assertEquals(anchors["variances"].doubles, manifest.anchors.variances)
        val thresholds = expected["thresholds"]
        assertEquals(
            listOf(thresholds["score"].double, thresholds["nms_iou"].double),
            manifest.thresholds.let {
                listOf(it.score, it.nmsIou)
            },
        )
        assertEquals(listOf(thresholds["top_k"].int, thresholds["keep"].int), manifest.thresholds.let { listOf(it.topK, it.keep) })
        val runtime = expected["runtime"]
        assertEquals(
            listOf(runtime["name"].string, runtime["minimum_version"].string),
            manifest.runtime.let {
                listOf(it.name, it.minimumVersion)
            },
        )
        val library = runtime["library"]
        assertEquals(
            listOf(library["name"].string, library["version"].string),
            manifest.runtime.library?.let {
                listOf(it.name, it.version)
            },
        )
        val parity = expected["parity"]
        val read = checkNotNull(manifest.parity)
        assertEquals(
            listOf("scores", "boxes_px", "landmarks_px").map {
                parity[it].double
            },
            listOf(read.scores, read.boxesPx, read.landmarksPx),
        )
        assertEquals(listOf(parity["anchors"].int, parity["photographs"].int), listOf(read.anchors, read.photographs))
    }

    @Test
    fun theBenchmarkWritesTheHarnessRecord() {
        val file = Golden.read("record.json")
        val expected = file["records"].list.single()
        val manifest = readManifest(Golden.read("manifest.json").cases.first()["text"].string)
        val input = expected["latency_input"].ints
        val record =
            BenchmarkRecord(
                artifact = expected["artifact"].string,
                manifest = manifest,
                runtimeVersion = expected["runtime_version"].string,
                device = expected["device"].string,
                machine = expected["machine"].string,
                threads = expected["threads"].int,
                loadMs = expected["load_ms"].double,
                latency = Latency.of(file["times_ms"].doubles.toDoubleArray(), expected["latency_ms"]["warmup"].int),
                inputHeight = input[0],
                inputWidth = input[1],
                peakMemoryBytes = expected["peak_memory_bytes"].int.toLong(),
            )
        assertEquals(file["records"].plain, Golden.parse(record.toJson()).plain)
    }
}

/** One case of `detection.json`. */
internal class Scene(file: Golden, case: Golden) {
    val hasLandmarks = !case.has("landmarks")
    private val strides = (if (case.has("strides")) case else file)["strides"].ints
    private val anchors = makeAnchors(case["input"].ints[0], case["input"].ints[1], strides, file["min_sizes"].intLists)
    val scores = FloatArray(anchors.size / ANCHOR_VALUES)
    val boxDeltas = FloatArray(4 * scores.size)
    val landmarkDeltas = FloatArray(if (hasLandmarks) 10 * scores.size else 0)
    val scaleX = case["scale"].doubles[0]
    val scaleY = case["scale"].doubles[1]
    val postprocessor =
        Postprocessor(
            anchors,
            file["variances"].doubles,
            case["thresholds"].fields.let { Thresholds(it.double("score"), it.double("nms_iou"), it.int("top_k"), it.int("keep")) },
        )

    init {
        for (output in case["outputs"].list) {
            val anchor = output.list[0].int
            val values = output.list.drop(1).map { it.float }.toFloatArray()
            scores[anchor] = values[0]
            values.copyInto(boxDeltas, 4 * anchor, 1, 5)
            if (hasLandmarks) values.copyInto(landmarkDeltas, 10 * anchor, 5, 15)
        }
    }
}
