package acwface.core

import kotlin.math.floor

/** Milliseconds of the network alone, [runs] measured after [warmup] that were not. */
class Latency(val median: Double, val p90: Double, val p99: Double, val min: Double, val runs: Int, val warmup: Int) {
    companion object {
        fun of(times: DoubleArray, warmup: Int): Latency {
            val sorted = times.sortedArray()
            return Latency(percentile(sorted, 50.0), percentile(sorted, 90.0), percentile(sorted, 99.0), sorted.first(), times.size, warmup)
        }
    }
}

/** Linear between the neighbours, as NumPy's default. */
internal fun percentile(sorted: DoubleArray, percent: Double): Double {
    val place = percent / 100 * (sorted.size - 1)
    val below = floor(place).toInt()
    val above = minOf(below + 1, sorted.size - 1)
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below)
}

/** What a benchmark on a phone measured: a record of `runtime_bench/record.py`, without an evaluation, which is not run on phones. */
class BenchmarkRecord(
    val artifact: String,
    val manifest: Manifest,
    val runtimeVersion: String,
    /** The phone, and the accelerator that ran the network. */
    val device: String,
    /** The processor's name. */
    val machine: String,
    val threads: Int,
    val loadMs: Double,
    val latency: Latency,
    val inputHeight: Int,
    val inputWidth: Int,
    /** What loading and running the model added to the resident memory of a fresh process, at its peak. */
    val peakMemoryBytes: Long,
) {
    /** A JSON list with this record in it: the file that `python -m runtime_bench report` reads. */
    fun toJson(): String =
        writeJson(
            listOf(
                linkedMapOf(
                    "artifact" to artifact,
                    "variant" to manifest.variant,
                    "dcn" to manifest.dcn,
                    "precision" to manifest.precision,
                    "format" to manifest.format,
                    "weights" to manifest.weights,
                    "checkpoint" to manifest.reference.sha256,
                    "runtime" to manifest.runtime.name,
                    "runtime_version" to runtimeVersion,
                    "device" to device,
                    "machine" to machine,
                    "threads" to threads,
                    "size_bytes" to manifest.model.sizeBytes,
                    "load_ms" to loadMs,
                    "latency_ms" to
                        linkedMapOf(
                            "median" to latency.median,
                            "p90" to latency.p90,
                            "p99" to latency.p99,
                            "min" to latency.min,
                            "runs" to latency.runs,
                            "warmup" to latency.warmup,
                        ),
                    "latency_input" to listOf(inputHeight, inputWidth),
                    "peak_memory_bytes" to peakMemoryBytes,
                    "protocol" to "letterbox-${inputHeight}x$inputWidth",
                    "dataset" to "none",
                    "images" to 0,
                    "failed_images" to emptyList<String>(),
                    "image_ms" to null,
                    "ap" to null,
                    "ap_reference" to null,
                    "drop" to null,
                ),
            ),
        ).append('\n').toString()
}
