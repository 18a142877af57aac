package acwface.core

import kotlin.math.exp

/** Faces of one photograph, best first, in its pixels; boxes may reach beyond its border. The arrays are filled up to [count]. */
class Faces(capacity: Int) {
    /** Whether [landmarks] are filled as well: networks that detect only have none. */
    var hasLandmarks = true
        internal set
    var count = 0
        internal set
    val scores = FloatArray(capacity)

    /** Left, top, right, bottom of each face. */
    val boxes = FloatArray(BOX * capacity)

    /** x, y of left eye, right eye, nose, left and right corner of the mouth; left as seen in the image. */
    val landmarks = FloatArray(LANDMARKS * capacity)

    /** Takes over another's faces: those that fit. */
    fun copyFrom(other: Faces) {
        count = minOf(other.count, scores.size)
        other.scores.copyInto(scores, endIndex = count)
        other.boxes.copyInto(boxes, endIndex = BOX * count)
        other.landmarks.copyInto(landmarks, endIndex = LANDMARKS * count)
        hasLandmarks = other.hasLandmarks
    }

    companion object {
        const val BOX = 4
        const val LANDMARKS = 10
    }
}

/**
 * From the network's outputs to faces: threshold, decode, suppress, as `model/postprocess.py` does. Allocates nothing after construction.
 *
 * Not for two threads at a time.
 *
 * @param anchors of [makeAnchors].
 * @param variances of the box coding: for centres and for log sizes.
 */
class Postprocessor(private val anchors: FloatArray, variances: List<Double>, private val thresholds: Thresholds) {
    private val count = anchors.size / ANCHOR_VALUES
    private val centreVariance = variances[0].toFloat()
    private val sizeVariance = variances[1].toFloat()
    private val ranking = Ranking(count)
    private val candidates = maxOf(0, minOf(thresholds.topK, count))
    private val boxes = FloatArray(Faces.BOX * candidates)
    private val suppression = Suppression(candidates)
    private val faces = Faces(maxOf(0, minOf(thresholds.keep, candidates)))

    /**
     * @param scores one for each anchor.
     * @param boxDeltas four for each anchor.
     * @param landmarkDeltas ten for each anchor; empty of a network that has none.
     * @param scaleX pixels of the input for one pixel of the photograph; faces are divided by it.
     * @return the same object every time, valid until the next call.
     */
    fun run(scores: FloatArray, boxDeltas: FloatArray, landmarkDeltas: FloatArray, scaleX: Double, scaleY: Double): Faces {
        faces.hasLandmarks = landmarkDeltas.isNotEmpty()
        val landmarks = if (faces.hasLandmarks) Faces.LANDMARKS else 0
        require(scores.size == count && boxDeltas.size == Faces.BOX * count && landmarkDeltas.size == landmarks * count) {
            "outputs of another input size: ${scores.size} scores for $count anchors"
        }
        val x = scaleX.toFloat()
        val y = scaleY.toFloat()
        val ranked = minOf(ranking.rank(scores, count, thresholds.score.toFloat()), candidates)
        for (place in 0 until ranked) decodeBox(boxDeltas, ranking.index(place), place, x, y)
        faces.count = suppression.run(boxes, ranked, thresholds.nmsIou, faces.scores.size)
        for (face in 0 until faces.count) {
            val place = suppression.kept[face]
            val anchor = ranking.index(place)
            faces.scores[face] = scores[anchor]
            boxes.copyInto(faces.boxes, Faces.BOX * face, Faces.BOX * place, Faces.BOX * (place + 1))
            if (faces.hasLandmarks) decodeLandmarks(landmarkDeltas, anchor, face, x, y)
        }
        return faces
    }

    /** SSD box coding (Liu et al. 2016, section 2.2), inverted. */
    private fun decodeBox(deltas: FloatArray, anchor: Int, place: Int, scaleX: Float, scaleY: Float) {
        val at = ANCHOR_VALUES * anchor
        val out = Faces.BOX * place
        val centreX = anchors[at] + deltas[at] * centreVariance * anchors[at + 2]
        val centreY = anchors[at + 1] + deltas[at + 1] * centreVariance * anchors[at + 3]
        val halfWidth = anchors[at + 2] * growth(deltas[at + 2]) / 2
        val halfHeight = anchors[at + 3] * growth(deltas[at + 3]) / 2
        boxes[out] = (centreX - halfWidth) / scaleX
        boxes[out + 1] = (centreY - halfHeight) / scaleY
        boxes[out + 2] = (centreX + halfWidth) / scaleX
        boxes[out + 3] = (centreY + halfHeight) / scaleY
    }

    // A wild network may ask for e^1000; a box of e^10 anchor sides is already off every photograph.
    private fun growth(delta: Float) = exp(minOf(delta * sizeVariance, MAX_LOG_GROWTH).toDouble()).toFloat()

    /** Each coded like a box's centre. */
    private fun decodeLandmarks(deltas: FloatArray, anchor: Int, face: Int, scaleX: Float, scaleY: Float) {
        val at = ANCHOR_VALUES * anchor
        for (point in 0 until Faces.LANDMARKS / 2) {
            val from = Faces.LANDMARKS * anchor + 2 * point
            val out = Faces.LANDMARKS * face + 2 * point
            faces.landmarks[out] = (anchors[at] + deltas[from] * centreVariance * anchors[at + 2]) / scaleX
            faces.landmarks[out + 1] = (anchors[at + 1] + deltas[from + 1] * centreVariance * anchors[at + 3]) / scaleY
        }
    }

    private companion object {
        const val MAX_LOG_GROWTH = 10f
    }
}

/** Indices of the scores above a threshold, highest first, of equal ones the first first. */
internal class Ranking(capacity: Int) {
    /** Score, turned so that integers sort as scores do, highest first; then the index. */
    private val keys = LongArray(capacity)

    fun rank(scores: FloatArray, count: Int, threshold: Float): Int {
        var ranked = 0
        for (index in 0 until count) {
            // What is not a number is never above.
            if (scores[index] > threshold) keys[ranked++] = descending(scores[index]) shl 32 or index.toLong()
        }
        sort(ranked)
        return ranked
    }

    fun index(place: Int) = keys[place].toInt()

    private fun descending(score: Float): Long {
        val bits = (score + 0f).toRawBits() // -0 becomes 0
        val ascending = bits xor (bits shr 31 and Int.MAX_VALUE)
        return ascending.inv().toLong()
    }

    /** Heapsort: in place, where the library's sort allocates for long arrays. */
    private fun sort(count: Int) {
        for (root in count / 2 - 1 downTo 0) sift(root, count)
        for (end in count - 1 downTo 1) {
            val largest = keys[0]
            keys[0] = keys[end]
            keys[end] = largest
            sift(0, end)
        }
    }

    private fun sift(from: Int, end: Int) {
        val key = keys[from]
        var root = from
        while (true) {
            var child = 2 * root + 1
            if (child >= end) break
            if (child + 1 < end && keys[child + 1] > keys[child]) child++
            if (keys[child] <= key) break
            keys[root] = keys[child]
            root = child
        }
        keys[root] = key
    }
}

/** Greedy non-maximum suppression of boxes that come best first, as torchvision's `nms` does it on the CPU. */
internal class Suppression(capacity: Int) {
    /** Which boxes are left, best first: as many as [run] says. */
    val kept = IntArray(capacity)
    private val suppressed = BooleanArray(capacity)

    fun run(boxes: FloatArray, count: Int, iou: Double, keep: Int): Int {
        suppressed.fill(false, 0, count)
        var left = 0
        for (first in 0 until count) {
            if (left == keep) break
            if (suppressed[first]) continue
            kept[left++] = first
            for (second in first + 1 until count) {
                // IoU is a float, the threshold a double; torchvision compares them so.
                if (!suppressed[second] && overlap(boxes, Faces.BOX * first, Faces.BOX * second) > iou) suppressed[second] = true
            }
        }
        return left
    }

    /** IoU. Comparisons are written out because `maxOf` hands on what is not a number and C++ does not. */
    private fun overlap(boxes: FloatArray, first: Int, second: Int): Float {
        val left = if (boxes[first] < boxes[second]) boxes[second] else boxes[first]
        val top = if (boxes[first + 1] < boxes[second + 1]) boxes[second + 1] else boxes[first + 1]
        val right = if (boxes[second + 2] < boxes[first + 2]) boxes[second + 2] else boxes[first + 2]
        val bottom = if (boxes[second + 3] < boxes[first + 3]) boxes[second + 3] else boxes[first + 3]
        val width = if (0f < right - left) right - left else 0f
        val height = if (0f < bottom - top) bottom - top else 0f
        val shared = width * height
        return shared / (area(boxes, first) + area(boxes, second) - shared)
    }

    private fun area(boxes: FloatArray, at: Int) = (boxes[at + 2] - boxes[at]) * (boxes[at + 3] - boxes[at + 1])
}
