package acwface.demo

import org.tensorflow.lite.Delegate

/** The project's operators for LiteRT's interpreter (`export/kernel`). Close it after the interpreter that it was given to. */
class KernelDelegate : Delegate, AutoCloseable {
    private var handle = create()

    init {
        check(handle != 0L) { "the delegate could not be made" }
    }

    override fun getNativeHandle(): Long = handle

    override fun close() {
        val closed = handle
        handle = 0
        if (closed != 0L) destroy(closed)
    }

    companion object {
        private const val NAME = "acwface_litert"

        /** Version of each library of operators that is in the app; none on processors that it was not built for. */
        fun libraries(): Map<String, String> =
            try {
                System.loadLibrary("acwface_jni")
                mapOf(NAME to version())
            } catch (_: LinkageError) {
                emptyMap()
            }

        @JvmStatic private external fun create(): Long

        @JvmStatic private external fun destroy(handle: Long)

        @JvmStatic private external fun version(): String
    }
}
