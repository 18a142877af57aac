package acwface.demo

import acwface.core.Faces
import acwface.core.ViewMap
import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.util.AttributeSet
import android.util.TypedValue
import android.view.View

/** Draws boxes, scores and, where there are any, landmarks over the photograph that the view below shows. */
class FaceOverlayView @JvmOverloads constructor(context: Context, attributes: AttributeSet? = null) : View(context, attributes) {
    /** What is drawn; guarded by itself, because faces come from the detector's thread. */
    private val faces = Faces(MAX_FACES)
    private var photographHeight = 0
    private var photographWidth = 0
    private var fill = true
    private var mirrored = false
    private var announced = -1
    private val map = ViewMap()

    private val line =
        Paint(Paint.ANTI_ALIAS_FLAG).apply {
            style = Paint.Style.STROKE
            color = context.getColor(R.color.face_box)
            strokeWidth = pixels(TypedValue.COMPLEX_UNIT_DIP, 2f)
        }
    private val point = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = context.getColor(R.color.face_landmark) }
    private val pointRadius = pixels(TypedValue.COMPLEX_UNIT_DIP, 2.5f)
    private val text =
        Paint(Paint.ANTI_ALIAS_FLAG).apply {
            color = context.getColor(R.color.face_text)
            textSize = pixels(TypedValue.COMPLEX_UNIT_SP, 12f)
        }
    private val background = Paint().apply { color = context.getColor(R.color.face_box) }

    /** Scores as drawn, by percent: made once, so that drawing allocates nothing. */
    private val labels = Array(101) { context.getString(R.string.percent, it) }

    init {
        contentDescription = resources.getQuantityString(R.plurals.faces, 0, 0)
    }

    /** Shows [found] of a photograph; from any thread. */
    fun show(found: Faces, photographHeight: Int, photographWidth: Int, fill: Boolean, mirrored: Boolean) {
        synchronized(faces) {
            faces.copyFrom(found)
            this.photographHeight = photographHeight
            this.photographWidth = photographWidth
            this.fill = fill
            this.mirrored = mirrored
        }
        postInvalidate()
    }

    fun clear() = show(Faces(0), 0, 0, fill = true, mirrored = false)

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        synchronized(faces) {
            announce(faces.count)
            if (photographWidth == 0) return
            map.set(photographWidth, photographHeight, width, height, fill, mirrored)
            for (face in 0 until faces.count) draw(canvas, face)
        }
    }

    private fun draw(canvas: Canvas, face: Int) {
        val box = Faces.BOX * face
        val x1 = map.x(faces.boxes[box])
        val x2 = map.x(faces.boxes[box + 2])
        val left = minOf(x1, x2) // a mirror changes sides
        val top = map.y(faces.boxes[box + 1])
        canvas.drawRect(left, top, maxOf(x1, x2), map.y(faces.boxes[box + 3]), line)
        val landmarks = if (faces.hasLandmarks) Faces.LANDMARKS / 2 else 0
        for (landmark in 0 until landmarks) {
            val at = Faces.LANDMARKS * face + 2 * landmark
            canvas.drawCircle(map.x(faces.landmarks[at]), map.y(faces.landmarks[at + 1]), pointRadius, point)
        }
        val label = labels[(100 * faces.scores[face]).toInt().coerceIn(0, 100)]
        canvas.drawRect(left, top - text.textSize, left + text.measureText(label), top, background)
        canvas.drawText(label, left, top - text.descent() / 2, text)
    }

    /** For screen readers; only when the number changes, they would never stop otherwise. */
    private fun announce(count: Int) {
        if (count == announced) return
        announced = count
        contentDescription = resources.getQuantityString(R.plurals.faces, count, count)
    }

    private fun pixels(unit: Int, value: Float) = TypedValue.applyDimension(unit, value, resources.displayMetrics)

    private companion object {
        const val MAX_FACES = 200
    }
}
