package acwface.demo

import acwface.core.BrokenModel
import acwface.core.Faces
import acwface.core.Incompatibility
import acwface.core.Model
import acwface.core.Problem
import acwface.core.RollingMean
import acwface.core.isIntact
import android.content.Context
import android.os.Build
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.view.View
import android.view.WindowInsets
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.FrameLayout
import android.widget.Spinner
import android.widget.TextView
import androidx.activity.ComponentActivity
import java.util.concurrent.Executors
import java.util.concurrent.RejectedExecutionException

/**
 * A picture with faces drawn over it, and the panel below: model, hardware, what runs and how fast.
 *
 * Everything that has to do with models happens in [worker], one task after the other: reading, opening, running, closing. So nothing of it
 * needs a lock, and the main thread never waits.
 */
abstract class DetectorActivity : ComponentActivity() {
    protected lateinit var overlay: FaceOverlayView
        private set
    protected lateinit var stage: FrameLayout
        private set
    private lateinit var message: TextView
    private lateinit var action: Button
    private lateinit var hardwareText: TextView
    private lateinit var timesText: TextView
    private lateinit var modelSpinner: Spinner
    private lateinit var hardwareSpinner: Spinner

    protected val main = Handler(Looper.getMainLooper())
    private val worker = Executors.newSingleThreadExecutor { Thread(it, "detector") }

    /** Only in the worker. */
    private var detector: FaceDetector? = null
    private val preprocessMs = RollingMean(FRAMES)
    private val networkMs = RollingMean(FRAMES)
    private val postprocessMs = RollingMean(FRAMES)
    private val frameMs = RollingMean(FRAMES)
    private var frameEnd = 0L
    private var shownAt = 0L

    /** Only in the main thread. */
    private var models = emptyList<Model>()
    private var broken = emptyList<BrokenModel>()
    private var opening: Pair<Model, Hardware>? = null
    private var pictureNotice: Notice? = null
    private var modelNotice: Notice? = null

    private val settings by lazy { getSharedPreferences("settings", Context.MODE_PRIVATE) }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.activity_detector)
        overlay = findViewById(R.id.overlay)
        stage = findViewById(R.id.stage)
        message = findViewById(R.id.message)
        action = findViewById(R.id.action)
        hardwareText = findViewById(R.id.hardware_text)
        timesText = findViewById(R.id.times_text)
        modelSpinner = findViewById(R.id.model_spinner)
        hardwareSpinner = findViewById(R.id.hardware_spinner)
        keepClearOfSystemBars(findViewById(R.id.root))
        onPictureCreated()
        showHardwareChoices()
        inWorker {
            val (models, broken) = Models.read(this)
            main.post { if (!isDestroyed) showModels(models, broken) }
        }
    }

    /** The view that shows the picture is put into [stage] here, below [overlay]. */
    protected abstract fun onPictureCreated()

    /** Whether pictures follow each other, so that there is a rate to show. */
    protected open val isContinuous = true

    /** A model is ready; in the main thread. */
    protected open fun onDetectorReady() = Unit

    override fun onDestroy() {
        inWorker { closeDetector() }
        worker.shutdown() // what has been handed in still runs
        super.onDestroy()
    }

    /** Runs [task] after everything that was handed in before; not at all once the activity is gone. */
    protected fun inWorker(task: () -> Unit) {
        try {
            worker.execute(task)
        } catch (_: RejectedExecutionException) {
            // A camera frame or a photograph that comes when the activity has been destroyed.
        }
    }

    /**
     * Finds the faces of one picture and shows them; in the worker only.
     *
     * @return whether there was a model to find them with.
     */
    protected fun detect(rgba: ByteArray, height: Int, width: Int, rowStride: Int, fill: Boolean, mirrored: Boolean): Boolean {
        val detector = detector ?: return false
        val faces: Faces
        try {
            faces = detector.detect(rgba, height, width, rowStride)
        } catch (error: Exception) { // LiteRT's own, or outputs that are not what detector.json says
            closeDetector()
            val reason = error.message ?: error.toString()
            main.post { showModelNotice(getString(R.string.model_failed, detector.model.name, reason)) }
            return false
        }
        overlay.show(faces, height, width, fill, mirrored)
        measure(detector)
        return true
    }

    private fun measure(detector: FaceDetector) {
        val now = System.nanoTime()
        preprocessMs.add(detector.preprocessMs)
        networkMs.add(detector.networkMs)
        postprocessMs.add(detector.postprocessMs)
        if (frameEnd != 0L) frameMs.add((now - frameEnd) / 1e6)
        frameEnd = now
        if (now - shownAt < SHOW_EVERY_NS) return
        shownAt = now
        val before = preprocessMs.mean
        val network = networkMs.mean
        val after = postprocessMs.mean
        val frame = frameMs.mean
        main.post { showTimes(before, network, after, if (frame > 0) 1000 / frame else 0.0) }
    }

    private fun closeDetector() {
        detector?.close()
        detector = null
    }

    // --- the panel ---

    /** Something is wrong, and what can be done about it. */
    private class Notice(val text: String, val actionText: Int, val onAction: () -> Unit)

    /** Of the picture: the camera, the photograph. [text] null: nothing is wrong. [actionText] 0: no button. */
    protected fun showPictureNotice(text: String?, actionText: Int = 0, onAction: () -> Unit = {}) {
        pictureNotice = text?.let { Notice(it, actionText, onAction) }
        showNotice()
    }

    /** Of the model. Neither hides the other: what is wrong with the picture comes first. */
    private fun showModelNotice(text: String?) {
        modelNotice = text?.let { Notice(it, 0) {} }
        showNotice()
    }

    private fun showNotice() {
        val notice = pictureNotice ?: modelNotice
        message.text = notice?.text
        message.visibility = if (notice == null) View.GONE else View.VISIBLE
        val hasAction = notice != null && notice.actionText != 0
        action.visibility = if (hasAction) View.VISIBLE else View.GONE
        if (notice == null || !hasAction) return
        action.setText(notice.actionText)
        action.setOnClickListener { notice.onAction() }
    }

    protected fun addButton(view: Int, onClick: () -> Unit) {
        val button: Button = findViewById(view)
        button.visibility = View.VISIBLE
        button.setOnClickListener { onClick() }
    }

    private fun showTimes(before: Double, network: Double, after: Double, framesPerSecond: Double) {
        val stages = getString(R.string.times, before, network, after)
        timesText.text = if (isContinuous) getString(R.string.times_and_rate, stages, framesPerSecond) else stages
    }

    private fun showModels(models: List<Model>, broken: List<BrokenModel>) {
        this.models = models
        this.broken = broken
        val names = models.map { it.name } + broken.map { it.name }
        if (names.isEmpty()) {
            showModelNotice(getString(R.string.no_models))
            return
        }
        choose(modelSpinner, names, names.indexOf(settings.getString(MODEL, null))) { place ->
            settings.edit().putString(MODEL, names[place]).apply()
            open()
        }
    }

    private fun showHardwareChoices() {
        choose(hardwareSpinner, Hardware.CHOICES.map(::describe), settings.getInt(HARDWARE, 0)) { place ->
            settings.edit().putInt(HARDWARE, place).apply()
            open()
        }
    }

    private fun choose(spinner: Spinner, names: List<String>, chosen: Int, onChosen: (Int) -> Unit) {
        val adapter = ArrayAdapter(this, android.R.layout.simple_spinner_item, names)
        adapter.setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item)
        spinner.adapter = adapter
        spinner.setSelection(chosen.coerceIn(names.indices))
        spinner.onItemSelectedListener =
            object : AdapterView.OnItemSelectedListener {
                override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) = onChosen(position)

                override fun onNothingSelected(parent: AdapterView<*>?) = Unit
            }
    }

    protected fun describe(hardware: Hardware): String =
        when (hardware.unit) {
            Hardware.Unit.CPU -> resources.getQuantityString(R.plurals.cpu, hardware.threads, hardware.threads)
            Hardware.Unit.GPU -> getString(R.string.gpu)
            Hardware.Unit.NPU -> getString(R.string.npu)
        }

    // --- opening a model ---

    private fun open() {
        val place = modelSpinner.selectedItemPosition
        val model = models.getOrNull(place) ?: return close(broken.getOrNull(place - models.size))
        val wanted = Hardware.CHOICES[hardwareSpinner.selectedItemPosition.coerceAtLeast(0)]
        if (opening == model to wanted) return // both spinners tell of their first selection
        opening = model to wanted
        showModelNotice(getString(R.string.opening, model.name))
        hardwareText.text = null
        timesText.text = null
        inWorker { openInWorker(model, wanted) }
    }

    /** Nothing runs; where a folder was chosen that is no artifact, because of that. */
    private fun close(chosen: BrokenModel?) {
        opening = null
        hardwareText.text = null
        timesText.text = null
        if (chosen != null) showModelNotice(getString(R.string.model_broken, chosen.name, chosen.reason))
        inWorker {
            closeDetector()
            overlay.clear()
        }
    }

    private fun openInWorker(model: Model, wanted: Hardware) {
        closeDetector() // first, so that never two are in memory
        for (mean in listOf(preprocessMs, networkMs, postprocessMs, frameMs)) mean.clear()
        frameEnd = 0
        overlay.clear()
        val failure =
            Models.incompatibility(model)?.let { describe(model, it) }
                ?: if (isIntact(model)) null else getString(R.string.model_damaged, model.name)
        if (failure != null) {
            ifStillWanted(model, wanted) { showModelNotice(failure) }
            return
        }
        try {
            val opened = openNetwork(this, model, wanted)
            detector = FaceDetector(model, opened)
            ifStillWanted(model, wanted) { showOpened(opened, wanted) }
        } catch (error: NetworkException) {
            ifStillWanted(model, wanted) { showModelNotice(getString(R.string.model_failed, model.name, error.message)) }
        }
    }

    /** Runs [task] in the main thread, unless something else has been chosen since. */
    private fun ifStillWanted(model: Model, wanted: Hardware, task: () -> Unit) {
        main.post { if (!isDestroyed && opening == model to wanted) task() }
    }

    /** Names what really runs; where it is not what was asked for, why. */
    private fun showOpened(opened: OpenedNetwork, wanted: Hardware) {
        showModelNotice(null)
        val sentence = if (opened.hardware.unit == Hardware.Unit.NPU) R.string.runs_on_npu else R.string.runs_on
        val running = getString(sentence, describe(opened.hardware))
        val refusals = opened.failures.map { getString(R.string.refused, it.unit.name, it.message) }
        hardwareText.text = (listOf(running) + refusals).joinToString("\n")
        hardwareText.contentDescription =
            if (opened.failures.isEmpty()) running else getString(R.string.fallback, describe(wanted), running)
        onDetectorReady()
    }

    private fun describe(model: Model, incompatibility: Incompatibility): String {
        val text =
            when (incompatibility.problem) {
                Problem.FORMAT -> R.string.problem_format
                Problem.RUNTIME -> R.string.problem_runtime
                Problem.LIBRARY -> R.string.problem_library
                Problem.LIBRARY_VERSION -> R.string.problem_library_version
                Problem.INPUT -> R.string.problem_input
                Problem.OUTPUTS -> R.string.problem_outputs
            }
        return getString(R.string.incompatible, model.name, getString(text, incompatibility.needed, incompatibility.present))
    }

    private fun keepClearOfSystemBars(root: View) {
        root.setOnApplyWindowInsetsListener { view, insets ->
            if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
                val bars = insets.getInsets(WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout())
                view.setPadding(bars.left, bars.top, bars.right, bars.bottom)
            } else {
                @Suppress("DEPRECATION") // what there was before Android 11
                view.setPadding(
                    insets.systemWindowInsetLeft,
                    insets.systemWindowInsetTop,
                    insets.systemWindowInsetRight,
                    insets.systemWindowInsetBottom,
                )
            }
            insets
        }
    }

    private companion object {
        const val MODEL = "model"
        const val HARDWARE = "hardware"
        const val FRAMES = 30
        const val SHOW_EVERY_NS = 250_000_000L
    }
}
