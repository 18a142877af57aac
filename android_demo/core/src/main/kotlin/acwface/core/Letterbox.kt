package acwface.core

import kotlin.math.round

/**
 * Where a photograph goes in an input of fixed size: the largest size that fits with its aspect ratio kept, in the upper left corner.
 *
 * @property height of the resized photograph, pixels.
 * @property scaleX pixels of the input for one pixel of the photograph. The photograph's origin is the input's origin.
 */
class Letterbox(photographHeight: Int, photographWidth: Int, inputHeight: Int, inputWidth: Int) {
    val height: Int
    val width: Int
    val scaleX: Double
    val scaleY: Double

    init {
        require(photographHeight > 0 && photographWidth > 0) { "an empty photograph" }
        val ratio = minOf(inputHeight.toDouble() / photographHeight, inputWidth.toDouble() / photographWidth)
        // Halves go to the even number, as in Python.
        height = maxOf(1, round(photographHeight * ratio).toInt())
        width = maxOf(1, round(photographWidth * ratio).toInt())
        scaleX = width.toDouble() / photographWidth
        scaleY = height.toDouble() / photographHeight
    }
}
