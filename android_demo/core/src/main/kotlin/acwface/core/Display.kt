package acwface.core

/** From pixels of a photograph to pixels of the view that shows it: scaled alike in both directions, centred, perhaps mirrored. */
class ViewMap {
    private var width = 0f
    private var offsetX = 0f
    private var offsetY = 0f
    private var mirrored = false

    /** Pixels of the view for one of the photograph. */
    var scale = 1f
        private set

    /**
     * @param fill the photograph covers the view and is cut off where it reaches beyond; otherwise all of it is seen.
     * @param mirrored the view shows the photograph as a mirror does, as front cameras are previewed.
     */
    fun set(photographWidth: Int, photographHeight: Int, viewWidth: Int, viewHeight: Int, fill: Boolean, mirrored: Boolean) {
        val horizontal = viewWidth.toFloat() / photographWidth
        val vertical = viewHeight.toFloat() / photographHeight
        scale = if (fill) maxOf(horizontal, vertical) else minOf(horizontal, vertical)
        width = photographWidth.toFloat()
        offsetX = (viewWidth - photographWidth * scale) / 2
        offsetY = (viewHeight - photographHeight * scale) / 2
        this.mirrored = mirrored
    }

    fun x(x: Float) = offsetX + (if (mirrored) width - x else x) * scale

    fun y(y: Float) = offsetY + y * scale
}

/** The mean of the last values. Allocates nothing after construction. */
class RollingMean(size: Int) {
    private val values = DoubleArray(size)
    private var added = 0

    val mean: Double
        get() {
            val count = minOf(added, values.size)
            var sum = 0.0
            for (index in 0 until count) sum += values[index]
            return if (count == 0) 0.0 else sum / count
        }

    fun add(value: Double) {
        values[added++ % values.size] = value
        if (added == 2 * values.size) added = values.size // never overflows
    }

    fun clear() {
        added = 0
    }
}
