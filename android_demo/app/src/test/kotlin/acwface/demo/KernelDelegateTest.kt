package acwface.demo

import org.junit.Assume.assumeNotNull
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNotEquals

/** The bridge to C, on a desktop JVM; run where the library has been built for it (`make test-android`). */
class KernelDelegateTest {
    private val version: String? = System.getProperty("kernel.version")

    @Test
    fun theLibraryTellsItsVersion() {
        assumeNotNull(version)
        assertEquals(mapOf("acwface_litert" to version), KernelDelegate.libraries())
    }

    @Test
    fun delegatesAreMadeAndClosedOnce() {
        assumeNotNull(version)
        KernelDelegate.libraries()
        val delegate = KernelDelegate()
        assertNotEquals(0L, delegate.nativeHandle)
        delegate.close()
        delegate.close()
        assertEquals(0L, delegate.nativeHandle)
    }

    @Test
    fun withoutTheLibraryThereIsNone() {
        if (version == null) assertEquals(emptyMap(), KernelDelegate.libraries())
    }
}
