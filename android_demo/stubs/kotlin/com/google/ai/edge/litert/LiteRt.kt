// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
@file:Suppress("UNUSED_PARAMETER", "unused")

package com.google.ai.edge.litert

import android.content.Context
import android.content.res.AssetManager

class LiteRtException(message: String) : Exception(message)

enum class Accelerator { NONE, CPU, GPU, NPU }

abstract class JniHandle internal constructor() : AutoCloseable {
    final override fun close(): Unit = throw UnsupportedOperationException()
}

class Environment private constructor() : JniHandle() {
    enum class Option { CompilerPluginLibraryDir, DispatchLibraryDir }

    fun getAvailableAccelerators(): Set<Accelerator> = throw UnsupportedOperationException()

    companion object {
        @JvmStatic
        @JvmOverloads
        fun create(context: Context, options: Map<Option, String> = mapOf(), enableCompilerCache: Boolean = true): Environment =
            throw UnsupportedOperationException()

        @JvmStatic
        @JvmOverloads
        fun create(
            context: Context,
            npuAcceleratorProvider: NpuAcceleratorProvider,
            options: Map<Option, String> = mapOf(),
            enableCompilerCache: Boolean = true,
        ): Environment = throw UnsupportedOperationException()
    }
}

interface NpuAcceleratorProvider {
    fun isDeviceSupported(): Boolean

    fun isLibraryReady(): Boolean

    suspend fun downloadLibrary()

    fun getLibraryDir(): String
}

interface NpuCompatibilityChecker {
    fun isDeviceSupported(): Boolean

    companion object {
        val Default: NpuCompatibilityChecker get() = throw UnsupportedOperationException()
    }
}

class BuiltinNpuAcceleratorProvider
@JvmOverloads
constructor(context: Context, npuCompatibilityChecker: NpuCompatibilityChecker = NpuCompatibilityChecker.Default) : NpuAcceleratorProvider {
    override fun isDeviceSupported(): Boolean = throw UnsupportedOperationException()

    override fun isLibraryReady(): Boolean = throw UnsupportedOperationException()

    override suspend fun downloadLibrary(): Unit = throw UnsupportedOperationException()

    override fun getLibraryDir(): String = throw UnsupportedOperationException()
}

class TensorBuffer internal constructor() : JniHandle() {
    fun writeFloat(data: FloatArray): Unit = throw UnsupportedOperationException()

    fun readFloat(): FloatArray = throw UnsupportedOperationException()
}

class CompiledModel private constructor() : JniHandle() {
    data class CpuOptions(val numThreads: Int? = null, val xnnPackFlags: Int? = null, val xnnPackWeightCachePath: String? = null)

    /** Without its other parameters: all have defaults, and the app names the one that it sets. */
    data class GpuOptions(val precision: Precision? = null) {
        enum class Precision { DEFAULT, FP16, FP32 }
    }

    class Options(vararg accelerators: Accelerator) {
        var cpuOptions: CpuOptions? = null
        var gpuOptions: GpuOptions? = null
    }

    fun createInputBuffer(inputName: String, signature: String = ""): TensorBuffer = throw UnsupportedOperationException()

    fun createOutputBuffer(outputName: String, signature: String = ""): TensorBuffer = throw UnsupportedOperationException()

    fun run(inputs: Map<String, TensorBuffer>, outputs: Map<String, TensorBuffer>, signature: String = ""): Unit =
        throw UnsupportedOperationException()

    companion object {
        @JvmStatic
        @JvmOverloads
        fun create(
            assetManager: AssetManager,
            assetName: String,
            options: Options = Options(Accelerator.CPU),
            optionalEnv: Environment? = null,
        ): CompiledModel = throw UnsupportedOperationException()

        @JvmStatic
        @JvmOverloads
        fun create(
            filePath: String,
            options: Options = Options(Accelerator.CPU),
            optionalEnv: Environment? = null,
        ): CompiledModel = throw UnsupportedOperationException()
    }
}
