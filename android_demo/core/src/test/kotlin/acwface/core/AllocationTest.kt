package acwface.core

import com.sun.management.ThreadMXBean
import java.lang.management.ManagementFactory
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue

/** Frames allocate nothing: no garbage collection in the middle of a video. */
class AllocationTest {
    private val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean

    /** Bytes that [runs] of [frame] allocate in this thread. */
    private inline fun allocated(runs: Int, frame: () -> Unit): Long {
        val before = threads.currentThreadAllocatedBytes
        repeat(runs) { frame() }
        return threads.currentThreadAllocatedBytes - before
    }

    /** In the quietest of some rounds: the virtual machine allocates a little when it compiles a method. */
    private inline fun assertNothing(what: String, frame: () -> Unit) {
        allocated(3, frame) // classes are loaded, buffers made
        assertEquals(0, (1..8).minOf { allocated(50, frame) }, what)
    }

    @Test
    fun theCounterCounts() {
        var kept = ByteArray(0)
        assertTrue(allocated(1) { kept = ByteArray(1000) } >= kept.size)
    }

    @Test
    fun postprocessing() {
        val file = Golden.read("detection.json")
        for (case in file.cases) {
            val scene = Scene(file, case)
            val shown = Faces(100)
            assertNothing(case["name"].string) {
                shown.copyFrom(scene.postprocessor.run(scene.scores, scene.boxDeltas, scene.landmarkDeltas, scene.scaleX, scene.scaleY))
            }
        }
    }

    @Test
    fun aFullSizeCrowd() {
        val anchors = makeAnchors(640, 640, listOf(8, 16, 32), listOf(listOf(16, 32), listOf(64, 128), listOf(256, 512)))
        val count = anchors.size / ANCHOR_VALUES
        val scores = FloatArray(count) { (it * 7919 % 1000) / 1000f }
        val postprocessor = Postprocessor(anchors, listOf(0.1, 0.2), Thresholds(score = 0.97))
        val faces = postprocessor.run(scores, FloatArray(4 * count), FloatArray(10 * count), 1.0, 1.0)
        assertTrue(faces.count > 20)
        val (boxDeltas, landmarkDeltas) = FloatArray(4 * count) to FloatArray(10 * count)
        assertNothing("a crowd") { postprocessor.run(scores, boxDeltas, landmarkDeltas, 1.0, 1.0) }
    }

    @Test
    fun preprocessing() {
        val preprocessor = Preprocessor(InputSpec(listOf(104.0, 117.0, 123.0), 1.0, "BGR", "NHWC"), 64, 64)
        val frame = ByteArray(4 * 120 * 90)
        assertNothing("frames of one size") { preprocessor.prepare(frame, 120, 90) }
    }

    @Test
    fun figures() {
        val mean = RollingMean(8)
        assertNothing("a rolling mean") {
            mean.add(1.0)
            mean.mean
        }
    }
}
