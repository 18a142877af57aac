package acwface.core

/**
 * From a photograph to the network's input of [height] x [width] pixels, bit for bit as `model/preprocess.py` makes it.
 *
 * Buffers are kept: frames of one size allocate nothing. Not for two threads at a time.
 */
class Preprocessor(spec: InputSpec, private val height: Int, private val width: Int) {
    /** float32 in the order of [InputSpec.layout]; overwritten by every [prepare]. */
    val tensor = FloatArray(CHANNELS * height * width)

    /** What the 256 byte values become, for red, green and blue. */
    private val values = FloatArray(CHANNELS * 256)

    /** Of red, green and blue in [tensor]. */
    private val offsets = IntArray(CHANNELS)
    private val pixelStep: Int

    private var photographHeight = 0
    private var photographWidth = 0
    private var letterbox: Letterbox? = null

    /** Null where that axis keeps its length. */
    private var columns: Resampling? = null
    private var rows: Resampling? = null

    /** The photograph after one and after both axes were resized; red, green, blue. */
    private var between = ByteArray(0)
    private var resized = ByteArray(0)

    init {
        val planes = spec.layout == "NCHW"
        pixelStep = if (planes) 1 else CHANNELS
        for (channel in 0 until CHANNELS) {
            val place = if (spec.colourOrder == "BGR") CHANNELS - 1 - channel else channel
            offsets[channel] = if (planes) place * height * width else place
            val mean = spec.mean[place].toFloat()
            for (value in 0 until 256) values[256 * channel + value] = (value.toFloat() - mean) * spec.scale.toFloat()
        }
    }

    /**
     * Fills [tensor].
     *
     * @param rgba bytes red, green, blue, anything; row by row.
     * @param rowStride bytes from one row to the next.
     */
    fun prepare(rgba: ByteArray, photographHeight: Int, photographWidth: Int, rowStride: Int = PIXEL_BYTES * photographWidth): Letterbox {
        require(rowStride >= PIXEL_BYTES * photographWidth) { "rows of $rowStride bytes hold no $photographWidth pixels" }
        require(rgba.size >= (photographHeight - 1) * rowStride + PIXEL_BYTES * photographWidth) { "too few bytes for the photograph" }
        val letterbox = fit(photographHeight, photographWidth)
        val columns = columns
        val rows = rows
        when {
            columns == null && rows == null -> normalise(rgba, rowStride, PIXEL_BYTES, letterbox)
            columns == null -> {
                resizeColumns(rgba, rowStride, PIXEL_BYTES, photographWidth, rows!!, resized)
                normalise(resized, CHANNELS * letterbox.width, CHANNELS, letterbox)
            }
            rows == null -> {
                resizeRows(rgba, rowStride, PIXEL_BYTES, columns, photographHeight, resized)
                normalise(resized, CHANNELS * letterbox.width, CHANNELS, letterbox)
            }
            else -> {
                if (columnsFirst(letterbox)) {
                    resizeColumns(rgba, rowStride, PIXEL_BYTES, photographWidth, rows, between)
                    resizeRows(between, CHANNELS * photographWidth, CHANNELS, columns, letterbox.height, resized)
                } else {
                    resizeRows(rgba, rowStride, PIXEL_BYTES, columns, photographHeight, between)
                    resizeColumns(between, CHANNELS * letterbox.width, CHANNELS, letterbox.width, rows, resized)
                }
                normalise(resized, CHANNELS * letterbox.width, CHANNELS, letterbox)
            }
        }
        return letterbox
    }

    private fun fit(photographHeight: Int, photographWidth: Int): Letterbox {
        val known = letterbox
        if (known != null && photographHeight == this.photographHeight && photographWidth == this.photographWidth) return known
        val fitted = Letterbox(photographHeight, photographWidth, height, width)
        this.photographHeight = photographHeight
        this.photographWidth = photographWidth
        columns = if (fitted.width == photographWidth) null else Resampling(photographWidth, fitted.width)
        rows = if (fitted.height == photographHeight) null else Resampling(photographHeight, fitted.height)
        between = ByteArray(CHANNELS * if (columnsFirst(fitted)) photographWidth * fitted.height else photographHeight * fitted.width)
        resized = ByteArray(CHANNELS * fitted.height * fitted.width)
        tensor.fill(0f) // the border has the mean colour
        letterbox = fitted
        return fitted
    }

    /** Which axis Pillow 13 resizes first: found by trial, and the order shows in the last bit. */
    private fun columnsFirst(to: Letterbox) =
        to.height < photographHeight && photographHeight - to.height > 2 * (photographWidth - to.width)

    /** Makes every row as long as [filter] says. */
    private fun resizeRows(from: ByteArray, rowStride: Int, pixelBytes: Int, filter: Resampling, count: Int, to: ByteArray) {
        var at = 0
        for (row in 0 until count) {
            for (target in 0 until filter.to) {
                var source = row * rowStride + pixelBytes * filter.first[target]
                var red = Resampling.HALF
                var green = Resampling.HALF
                var blue = Resampling.HALF
                val tap = target * filter.taps
                for (index in tap until tap + filter.count[target]) {
                    val weight = filter.weights[index]
                    red += weight * (from[source].toInt() and 255)
                    green += weight * (from[source + 1].toInt() and 255)
                    blue += weight * (from[source + 2].toInt() and 255)
                    source += pixelBytes
                }
                to[at++] = Resampling.toByte(red)
                to[at++] = Resampling.toByte(green)
                to[at++] = Resampling.toByte(blue)
            }
        }
    }

    /** Makes every column as long as [filter] says. */
    private fun resizeColumns(from: ByteArray, rowStride: Int, pixelBytes: Int, count: Int, filter: Resampling, to: ByteArray) {
        var at = 0
        for (target in 0 until filter.to) {
            val tap = target * filter.taps
            for (column in 0 until count) {
                var source = filter.first[target] * rowStride + column * pixelBytes
                var red = Resampling.HALF
                var green = Resampling.HALF
                var blue = Resampling.HALF
                for (index in tap until tap + filter.count[target]) {
                    val weight = filter.weights[index]
                    red += weight * (from[source].toInt() and 255)
                    green += weight * (from[source + 1].toInt() and 255)
                    blue += weight * (from[source + 2].toInt() and 255)
                    source += rowStride
                }
                to[at++] = Resampling.toByte(red)
                to[at++] = Resampling.toByte(green)
                to[at++] = Resampling.toByte(blue)
            }
        }
    }

    private fun normalise(from: ByteArray, rowStride: Int, pixelBytes: Int, size: Letterbox) {
        for (row in 0 until size.height) {
            var source = row * rowStride
            var target = row * width * pixelStep
            for (column in 0 until size.width) {
                for (channel in 0 until CHANNELS) {
                    tensor[target + offsets[channel]] = values[256 * channel + (from[source + channel].toInt() and 255)]
                }
                source += pixelBytes
                target += pixelStep
            }
        }
    }

    companion object {
        const val PIXEL_BYTES = 4
        private const val CHANNELS = 3
    }
}
