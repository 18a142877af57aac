package acwface.core

import kotlin.math.abs
import kotlin.math.ceil

/**
 * Weights of Pillow's bilinear filter along one axis, antialiased when it shrinks, in the fixed point that Pillow uses for bytes: whoever sums
 * with them as [Preprocessor] does gets Pillow's bytes.
 */
internal class Resampling(from: Int, val to: Int) {
    /** Most source pixels of one target pixel. */
    val taps: Int

    /** First source pixel and number of them, for each target pixel. */
    val first = IntArray(to)
    val count = IntArray(to)

    /** [taps] for each target pixel, of which [count] are used. */
    val weights: IntArray

    init {
        val scale = from.toDouble() / to
        val support = maxOf(scale, 1.0)
        taps = ceil(support).toInt() * 2 + 1
        weights = IntArray(to * taps)
        val exact = DoubleArray(taps)
        for (target in 0 until to) {
            val centre = (target + 0.5) * scale
            first[target] = maxOf((centre - support + 0.5).toInt(), 0)
            count[target] = minOf((centre + support + 0.5).toInt(), from) - first[target]
            var sum = 0.0
            for (tap in 0 until count[target]) {
                exact[tap] = maxOf(0.0, 1.0 - abs((tap + first[target] - centre + 0.5) * (1.0 / support)))
                sum += exact[tap]
            }
            for (tap in 0 until count[target]) {
                weights[target * taps + tap] = (0.5 + (if (sum != 0.0) exact[tap] / sum else exact[tap]) * (1 shl PRECISION)).toInt()
            }
        }
    }

    companion object {
        /** Bits behind the point: 8 are the byte's, 2 are spare. */
        const val PRECISION = 32 - 8 - 2
        const val HALF = 1 shl (PRECISION - 1)

        fun toByte(sum: Int): Byte = (sum shr PRECISION).coerceIn(0, 255).toByte()
    }
}
