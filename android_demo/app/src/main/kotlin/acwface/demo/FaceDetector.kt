package acwface.demo

import acwface.core.Faces
import acwface.core.Model
import acwface.core.Postprocessor
import acwface.core.Preprocessor
import acwface.core.makeAnchors
import android.os.SystemClock

/** Preprocessing, a network, postprocessing, and how long each took. In one thread at a time. */
class FaceDetector(val model: Model, val opened: OpenedNetwork) : AutoCloseable {
    private val height = checkNotNull(model.manifest.input.height)
    private val width = checkNotNull(model.manifest.input.width)
    private val preprocessor = Preprocessor(model.manifest.input.spec, height, width)
    private val postprocessor =
        model.manifest.anchors.let {
            Postprocessor(makeAnchors(height, width, it.strides, it.minSizes), it.variances, model.manifest.thresholds)
        }

    /** Milliseconds of the last photograph. */
    var preprocessMs = 0.0
        private set
    var networkMs = 0.0
        private set
    var postprocessMs = 0.0
        private set

    /** The same object every time, valid until the next call; see [Preprocessor.prepare] for the arguments. */
    fun detect(rgba: ByteArray, photographHeight: Int, photographWidth: Int, rowStride: Int): Faces {
        val start = SystemClock.elapsedRealtimeNanos()
        val letterbox = preprocessor.prepare(rgba, photographHeight, photographWidth, rowStride)
        val prepared = SystemClock.elapsedRealtimeNanos()
        val network = opened.network
        network.run(preprocessor.tensor)
        val run = SystemClock.elapsedRealtimeNanos()
        val faces = postprocessor.run(network.scores, network.boxDeltas, network.landmarkDeltas, letterbox.scaleX, letterbox.scaleY)
        val end = SystemClock.elapsedRealtimeNanos()
        preprocessMs = (prepared - start) / 1e6
        networkMs = (run - prepared) / 1e6
        postprocessMs = (end - run) / 1e6
        return faces
    }

    override fun close() = opened.network.close()
}
