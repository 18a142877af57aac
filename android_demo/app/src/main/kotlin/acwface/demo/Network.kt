package acwface.demo

import acwface.core.Model
import android.content.Context
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.BuiltinNpuAcceleratorProvider
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import com.google.ai.edge.litert.TensorBuffer
import org.tensorflow.lite.InterpreterApi
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.channels.FileChannel

/** Where a network runs. [threads] count for the CPU only. */
data class Hardware(val unit: Unit, val threads: Int) {
    enum class Unit { CPU, GPU, NPU }

    companion object {
        val CHOICES =
            listOf(Hardware(Unit.CPU, 4), Hardware(Unit.CPU, 2), Hardware(Unit.CPU, 1), Hardware(Unit.GPU, 1), Hardware(Unit.NPU, 1))
    }
}

/** A network that is ready to run, in one thread at a time. */
interface Network : AutoCloseable {
    /** One for each anchor; filled by [run], as the other two are. */
    val scores: FloatArray
    val boxDeltas: FloatArray

    /** Empty of a network that detects only. */
    val landmarkDeltas: FloatArray

    /** @param input as the manifest's input says. */
    fun run(input: FloatArray)
}

/** A network, what really runs it, and why that is not what was asked for. */
class OpenedNetwork(val network: Network, val hardware: Hardware, val failures: List<Failure>) {
    /** [message] is the runtime's own. */
    class Failure(val unit: Hardware.Unit, val message: String)
}

/** Nothing could be made to run the model; the message is the runtime's own. */
class NetworkException(message: String, cause: Throwable) : Exception(message, cause)

/**
 * Opens a model on [wanted] hardware or, with [fallback], on the next best that takes it: NPU, GPU, CPU.
 *
 * Each is asked for alone. LiteRT then refuses a model of which the GPU cannot run all, so what is named is what runs; for the NPU it permits
 * parts on the CPU and does not tell. Models with operators of the project's own need the interpreter, which LiteRT has on the CPU only.
 *
 * @throws NetworkException nothing of that runs it.
 */
fun openNetwork(context: Context, model: Model, wanted: Hardware, fallback: Boolean = true): OpenedNetwork {
    val failures = ArrayList<OpenedNetwork.Failure>()
    val custom = model.manifest.runtime.library != null
    val order = listOf(Hardware.Unit.NPU, Hardware.Unit.GPU, Hardware.Unit.CPU)
    val units = if (fallback) order.dropWhile { it != wanted.unit } else listOf(wanted.unit)
    for (hardware in units.map { Hardware(it, threads(it, wanted)) }) {
        try {
            val network =
                when {
                    !custom -> CompiledNetwork(context, model, hardware)
                    hardware.unit == Hardware.Unit.CPU -> InterpretedNetwork(context, model, hardware.threads)
                    else -> throw UnsupportedOperationException(context.getString(R.string.custom_operators_need_cpu))
                }
            return OpenedNetwork(network, hardware, failures)
        } catch (error: Exception) {
            failures.add(OpenedNetwork.Failure(hardware.unit, error.message ?: error.toString()))
            if (hardware.unit == units.last()) throw NetworkException(failures.last().message, error)
        } catch (error: LinkageError) { // a runtime library that this processor has not
            failures.add(OpenedNetwork.Failure(hardware.unit, error.toString()))
            if (hardware.unit == units.last()) throw NetworkException(failures.last().message, error)
        }
    }
    error("one is always tried")
}

private fun threads(unit: Hardware.Unit, wanted: Hardware) =
    when {
        unit != Hardware.Unit.CPU -> 1
        wanted.unit == Hardware.Unit.CPU -> wanted.threads
        else -> FALLBACK_THREADS
    }

private const val FALLBACK_THREADS = 4

/** Meaning of an output that not every network has. */
private const val LANDMARKS = "landmark_deltas"

/** LiteRT's CompiledModel: any accelerator. */
private class CompiledNetwork(context: Context, model: Model, hardware: Hardware) : Network {
    private val closing = Closing()
    private val compiled: CompiledModel
    private val inputs: Map<String, TensorBuffer>
    private val outputs: Map<String, TensorBuffer>
    private val input: TensorBuffer
    private val names = model.manifest.outputs.associate { it.meaning to it.name }

    override var scores = FloatArray(0)
        private set
    override var boxDeltas = FloatArray(0)
        private set
    override var landmarkDeltas = FloatArray(0)
        private set

    init {
        try {
            val environment = closing.add(environment(context, hardware.unit))
            val file = model.file
            val options = options(hardware)
            compiled =
                closing.add(
                    if (file == null) {
                        CompiledModel.create(context.assets, model.asset, options, environment)
                    } else {
                        CompiledModel.create(file.path, options, environment)
                    },
                )
            input = closing.add(compiled.createInputBuffer(model.manifest.input.name))
            inputs = mapOf(model.manifest.input.name to input)
            outputs = model.manifest.outputs.associate { it.name to closing.add(compiled.createOutputBuffer(it.name)) }
        } catch (error: Throwable) {
            closing.close()
            throw error
        }
    }

    private fun environment(context: Context, unit: Hardware.Unit): Environment {
        if (unit != Hardware.Unit.NPU) return Environment.create(context)
        val provider = BuiltinNpuAcceleratorProvider(context)
        if (!provider.isDeviceSupported()) throw UnsupportedOperationException(context.getString(R.string.npu_not_supported))
        return Environment.create(context, provider)
    }

    private fun options(hardware: Hardware) =
        when (hardware.unit) {
            Hardware.Unit.CPU ->
                CompiledModel.Options(Accelerator.CPU).apply {
                    cpuOptions = CompiledModel.CpuOptions(numThreads = hardware.threads)
                }
            // Single precision: what the parity in detector.json was measured with.
            Hardware.Unit.GPU ->
                CompiledModel.Options(Accelerator.GPU).apply {
                    gpuOptions = CompiledModel.GpuOptions(precision = CompiledModel.GpuOptions.Precision.FP32)
                }
            Hardware.Unit.NPU -> CompiledModel.Options(Accelerator.NPU)
        }

    // readFloat() makes a new array every time; LiteRT's Kotlin interface has nothing that fills one.
    override fun run(input: FloatArray) {
        this.input.writeFloat(input)
        compiled.run(inputs, outputs)
        scores = read("scores")
        boxDeltas = read("box_deltas")
        if (LANDMARKS in names) landmarkDeltas = read(LANDMARKS)
    }

    private fun read(meaning: String) = outputs.getValue(names.getValue(meaning)).readFloat()

    override fun close() = closing.close()
}

/** LiteRT's interpreter with the project's delegate: models with operators of the project's own, on the CPU. */
private class InterpretedNetwork(context: Context, model: Model, threads: Int) : Network {
    private val closing = Closing()
    private val interpreter: InterpreterApi
    private val input: ByteBuffer
    private val floats: FloatBuffer
    private val inputs: Array<Any>
    private val outputs = HashMap<Int, Any>()
    private val buffers = HashMap<String, FloatBuffer>()

    override val scores: FloatArray
    override val boxDeltas: FloatArray
    override val landmarkDeltas: FloatArray

    init {
        try {
            val delegate = closing.add(KernelDelegate())
            val options = InterpreterApi.Options().setNumThreads(threads).addDelegate(delegate)
            interpreter = closing.add(InterpreterApi.create(map(context, model), options))
            input = direct(model.manifest.input.shape)
            for (output in model.manifest.outputs) {
                val bytes = direct(output.shape)
                outputs[interpreter.getOutputIndex(output.name)] = bytes
                buffers[output.meaning] = bytes.asFloatBuffer()
            }
        } catch (error: Throwable) {
            closing.close()
            throw error
        }
        floats = input.asFloatBuffer()
        inputs = arrayOf(input)
        scores = array("scores")
        boxDeltas = array("box_deltas")
        landmarkDeltas = if (LANDMARKS in buffers) array(LANDMARKS) else FloatArray(0)
    }

    /** The model file, not copied: assets are stored uncompressed. */
    private fun map(context: Context, model: Model): ByteBuffer {
        val file = model.file
        if (file != null) {
            return FileInputStream(file).use { it.channel.map(FileChannel.MapMode.READ_ONLY, 0, it.channel.size()) }
        }
        return context.assets.openFd(model.asset).use { asset ->
            FileInputStream(asset.fileDescriptor).use { stream ->
                stream.channel.map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
            }
        }
    }

    private fun direct(shape: List<Int?>): ByteBuffer {
        val floats = shape.fold(1) { size, axis -> size * checkNotNull(axis) }
        return ByteBuffer.allocateDirect(Float.SIZE_BYTES * floats).order(ByteOrder.nativeOrder())
    }

    private fun array(meaning: String) = FloatArray(buffers.getValue(meaning).capacity())

    override fun run(input: FloatArray) {
        floats.rewind()
        floats.put(input)
        this.input.rewind()
        for (output in outputs.values) (output as ByteBuffer).rewind()
        interpreter.runForMultipleInputsOutputs(inputs, outputs)
        read("scores", scores)
        read("box_deltas", boxDeltas)
        if (LANDMARKS in buffers) read(LANDMARKS, landmarkDeltas)
    }

    private fun read(meaning: String, to: FloatArray) {
        val from = buffers.getValue(meaning)
        from.rewind()
        from.get(to)
    }

    override fun close() = closing.close()
}

/** Closes in reverse what was opened one after the other. */
private class Closing : AutoCloseable {
    private val opened = ArrayList<AutoCloseable>()

    fun <T : AutoCloseable> add(resource: T): T = resource.also { opened.add(it) }

    override fun close() {
        while (opened.isNotEmpty()) opened.removeAt(opened.lastIndex).close()
    }
}
