package acwface.core

/** Values of one anchor in the array of [makeAnchors]: centre x, centre y, width, height. */
const val ANCHOR_VALUES = 4

/**
 * Anchors of an input of [height] x [width] pixels (RetinaFace, Deng et al. 2020, section 3.4; square only), in its pixels.
 *
 * Levels in order, cells row by row, sizes of a cell next to each other: the order of the network's outputs.
 */
fun makeAnchors(height: Int, width: Int, strides: List<Int>, minSizes: List<List<Int>>): FloatArray {
    if (strides.size != minSizes.size) throw FormatException("anchors: one list of min_sizes for each stride expected")
    if (strides.any { it < 1 }) throw FormatException("anchors: strides of at least 1 expected")
    val count = strides.indices.sumOf { cells(height, strides[it]) * cells(width, strides[it]) * minSizes[it].size }
    val anchors = FloatArray(ANCHOR_VALUES * count)
    var at = 0
    for ((stride, sizes) in strides.zip(minSizes)) {
        for (row in 0 until cells(height, stride)) {
            for (column in 0 until cells(width, stride)) {
                for (size in sizes) {
                    anchors[at++] = ((column + 0.5) * stride).toFloat()
                    anchors[at++] = ((row + 0.5) * stride).toFloat()
                    anchors[at++] = size.toFloat()
                    anchors[at++] = size.toFloat()
                }
            }
        }
    }
    return anchors
}

private fun cells(pixels: Int, stride: Int) = (pixels + stride - 1) / stride
