package acwface.demo

import acwface.core.BenchmarkRecord
import acwface.core.Latency
import acwface.core.Outbox
import acwface.core.Preprocessor
import acwface.core.isIntact
import android.app.KeyguardManager
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.os.SystemClock
import android.util.Log
import android.view.WindowManager
import android.widget.TextView
import androidx.activity.ComponentActivity
import java.io.File
import java.io.IOException
import java.util.concurrent.Executors

/**
 * Measures one model and writes the harness's record, in a process of its own that does nothing else:
 *
 *     adb shell am start -S -n acwface.demo/.BenchmarkActivity -e model NAME [-e hardware cpu|gpu|npu] [--ei threads N] [--ei warmup N] [--ei runs N]
 *         [-e record FILE] [--ez fallback false]
 *     adb pull /sdcard/Android/data/acwface.demo/files/benchmark
 *
 * `-S` ends an earlier one first; without it Android only shows that one again. With `record` there is, at the end, FILE.json or the reason,
 * FILE.failed. Without `fallback` what the hardware refuses is not measured on another.
 *
 * The log line `acwface-benchmark: done FILE` or `acwface-benchmark: failed REASON` says that it is over.
 */
class BenchmarkActivity : ComponentActivity() {
    private val worker = Executors.newSingleThreadExecutor { Thread(it, "benchmark") }
    private val outbox by lazy { Outbox(File(getExternalFilesDir(null) ?: filesDir, "benchmark")) }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val text = TextView(this)
        text.setTextIsSelectable(true)
        setContentView(text)
        text.text = getString(R.string.benchmark_running, intent.getStringExtra("model"))
        worker.execute {
            val (shown, logged) =
                try {
                    val file = measure(intent)
                    getString(R.string.benchmark_done, file.path, file.readText()) to "done $file"
                } catch (error: Exception) { // whatever it is, it is the benchmark's result
                    failed(error.message ?: error.toString())
                } catch (error: LinkageError) {
                    failed(error.toString())
                }
            Log.i(TAG, logged)
            runOnUiThread { text.text = shown }
        }
        worker.shutdown()
    }

    /** What to show and what to log. */
    private fun failed(reason: String): Pair<String, String> {
        try {
            intent.getStringExtra("record")?.let { outbox.failed(it, reason) }
        } catch (error: IOException) {
            Log.w(TAG, error)
        }
        return getString(R.string.benchmark_failed, reason) to "failed $reason"
    }

    private fun measure(request: Intent): File {
        val name = request.getStringExtra("model")
        val unit = Hardware.Unit.entries.firstOrNull { it.name.equals(request.getStringExtra("hardware") ?: "cpu", ignoreCase = true) }
        val threads = request.getIntExtra("threads", 1)
        val runs = request.getIntExtra("runs", RUNS)
        val warmup = request.getIntExtra("warmup", WARMUP)
        if (unit == null || threads < 1 || runs < 1 || warmup < 0) throw IOException(getString(R.string.benchmark_arguments))
        if (getSystemService(KeyguardManager::class.java).isKeyguardLocked) throw IOException(getString(R.string.benchmark_locked))
        val (models, broken) = Models.read(this)
        broken.firstOrNull { it.name == name }?.let { throw IOException(getString(R.string.model_broken, it.name, it.reason)) }
        val model = models.firstOrNull { it.name == name } ?: throw IOException(getString(R.string.benchmark_no_model, name))
        Models.incompatibility(model)?.let { throw IOException("${it.problem}: ${it.needed}, ${it.present}") }
        if (!isIntact(model)) throw IOException(getString(R.string.model_damaged, model.name))
        val height = checkNotNull(model.manifest.input.height)
        val width = checkNotNull(model.manifest.input.width)
        val input = Preprocessor(model.manifest.input.spec, height, width).apply { prepare(noise(height, width), height, width) }.tensor
        val memory = peakMemory()
        val start = SystemClock.elapsedRealtimeNanos()
        val opened = openNetwork(this, model, Hardware(unit, threads), request.getBooleanExtra("fallback", true))
        val loadMs = (SystemClock.elapsedRealtimeNanos() - start) / 1e6
        val times = DoubleArray(runs)
        opened.network.use { network ->
            repeat(warmup) { network.run(input) }
            for (run in times.indices) {
                val before = SystemClock.elapsedRealtimeNanos()
                network.run(input)
                times[run] = (SystemClock.elapsedRealtimeNanos() - before) / 1e6
            }
        }
        val record =
            BenchmarkRecord(
                artifact = model.name,
                manifest = model.manifest,
                runtimeVersion = BuildConfig.LITERT_VERSION,
                device = "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}, ${opened.hardware.unit.name.lowercase()}",
                machine = processor(),
                threads = opened.hardware.threads,
                loadMs = loadMs,
                latency = Latency.of(times, warmup),
                inputHeight = height,
                inputWidth = width,
                peakMemoryBytes = peakMemory() - memory,
            )
        val usual = "${model.name}-${opened.hardware.unit.name.lowercase()}-${opened.hardware.threads}"
        return outbox.done(request.getStringExtra("record") ?: usual, record)
    }

    /** A photograph that every phone has: what is in it does not change the time. */
    private fun noise(height: Int, width: Int): ByteArray {
        var state = 1
        return ByteArray(Preprocessor.PIXEL_BYTES * height * width) {
            state = 1664525 * state + 1013904223
            (state ushr 24).toByte()
        }
    }

    private fun processor() =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) "${Build.SOC_MANUFACTURER} ${Build.SOC_MODEL}" else Build.HARDWARE

    /** Bytes: the process's largest resident memory so far. */
    private fun peakMemory(): Long {
        val line = File("/proc/self/status").readLines().first { it.startsWith("VmHWM") }
        return line.split(Regex("\\s+"))[1].toLong() * 1024
    }

    private companion object {
        const val TAG = "acwface-benchmark"
        const val WARMUP = 10
        const val RUNS = 50
    }
}
