package acwface.demo

import android.Manifest
import android.content.Intent
import android.content.pm.PackageManager
import android.hardware.display.DisplayManager
import android.net.Uri
import android.os.Bundle
import android.provider.Settings
import android.util.Size
import android.view.WindowManager
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraInfoUnavailableException
import androidx.camera.core.CameraSelector
import androidx.camera.core.CameraState
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.AspectRatioStrategy
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.core.resolutionselector.ResolutionStrategy
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import java.util.concurrent.ExecutionException
import java.util.concurrent.Executor

/** Faces in what the camera sees. */
class CameraActivity : DetectorActivity() {
    private lateinit var preview: PreviewView
    private var provider: ProcessCameraProvider? = null
    private var previewCase: Preview? = null
    private var analysisCase: ImageAnalysis? = null
    private var front = true
    private var asked = false
    private var cameraFailed = false
    private var frame = ByteArray(0) // only in the worker

    private val mainExecutor = Executor { main.post(it) }
    private val permission = registerForActivityResult(ActivityResultContracts.RequestPermission()) { onPermission(it) }

    /** The screen can be turned upside down without the activity being made anew. */
    private val displays =
        object : DisplayManager.DisplayListener {
            override fun onDisplayAdded(displayId: Int) = Unit

            override fun onDisplayRemoved(displayId: Int) = Unit

            override fun onDisplayChanged(displayId: Int) = turn()
        }

    override fun onCreate(savedInstanceState: Bundle?) {
        front = savedInstanceState?.getBoolean(FRONT) ?: true
        asked = savedInstanceState?.getBoolean(ASKED) ?: false
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        addButton(R.id.switch_camera) {
            front = !front
            bind()
        }
        addButton(R.id.open_photo) { startActivity(Intent(this, PhotoActivity::class.java)) }
        getSystemService(DisplayManager::class.java).registerDisplayListener(displays, main)
    }

    override fun onPictureCreated() {
        preview = PreviewView(this)
        preview.scaleType = PreviewView.ScaleType.FILL_CENTER
        preview.contentDescription = getString(R.string.camera_preview)
        stage.addView(preview, 0)
    }

    override fun onStart() {
        super.onStart()
        // Also when coming back: the permission may have been given or taken away in the settings.
        when {
            checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED -> startCamera()
            asked -> onPermission(false)
            else -> ask()
        }
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putBoolean(FRONT, front)
        outState.putBoolean(ASKED, asked)
    }

    override fun onDestroy() {
        getSystemService(DisplayManager::class.java).unregisterDisplayListener(displays)
        analysisCase?.clearAnalyzer()
        super.onDestroy()
    }

    private fun ask() {
        asked = true
        permission.launch(Manifest.permission.CAMERA)
    }

    private fun onPermission(granted: Boolean) {
        when {
            granted -> startCamera()
            shouldShowRequestPermissionRationale(Manifest.permission.CAMERA) ->
                showPictureNotice(getString(R.string.camera_denied), R.string.ask_again) { ask() }
            else -> showPictureNotice(getString(R.string.camera_denied), R.string.open_settings) { openSettings() }
        }
    }

    private fun openSettings() {
        startActivity(Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, Uri.fromParts("package", packageName, null)))
    }

    private fun startCamera() {
        if (provider != null) return // CameraX opens and closes the camera with the activity
        showPictureNotice(null)
        val future = ProcessCameraProvider.getInstance(this)
        future.addListener({
            if (isDestroyed) return@addListener
            try {
                provider = future.get()
                bind()
            } catch (error: ExecutionException) {
                showPictureNotice(getString(R.string.camera_failed, error.cause?.message ?: error.toString()))
            }
        }, mainExecutor)
    }

    private fun bind() {
        val provider = provider ?: return
        provider.unbindAll()
        overlay.clear()
        val selector = selector(provider) ?: return showPictureNotice(getString(R.string.no_camera))
        // Both in 4:3, so that what is analysed is what is seen, but for the part that the view cuts off.
        val previewCase = Preview.Builder().setResolutionSelector(resolution(null)).build()
        val analysisCase =
            ImageAnalysis.Builder()
                .setResolutionSelector(resolution(Size(640, 480)))
                .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST) // while one frame is in work, older ones are dropped
                .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
                .setOutputImageRotationEnabled(true) // frames come upright
                .build()
        this.previewCase = previewCase
        this.analysisCase = analysisCase
        turn()
        previewCase.setSurfaceProvider(preview.surfaceProvider)
        val mirrored = selector == CameraSelector.DEFAULT_FRONT_CAMERA // as PreviewView shows it
        analysisCase.setAnalyzer({ inWorker(it::run) }) { analyse(it, mirrored) }
        try {
            val camera = provider.bindToLifecycle(this, selector, previewCase, analysisCase)
            camera.cameraInfo.cameraState.observe(this) { onCameraState(it) }
        } catch (error: IllegalArgumentException) { // no such pair of resolutions
            showPictureNotice(getString(R.string.camera_failed, error.message))
        } catch (error: IllegalStateException) {
            showPictureNotice(getString(R.string.camera_failed, error.message))
        }
    }

    private fun selector(provider: ProcessCameraProvider): CameraSelector? {
        val (first, second) =
            if (front) {
                CameraSelector.DEFAULT_FRONT_CAMERA to CameraSelector.DEFAULT_BACK_CAMERA
            } else {
                CameraSelector.DEFAULT_BACK_CAMERA to CameraSelector.DEFAULT_FRONT_CAMERA
            }
        return listOf(first, second).firstOrNull {
            try {
                provider.hasCamera(it)
            } catch (_: CameraInfoUnavailableException) {
                false
            }
        }
    }

    private fun resolution(size: Size?): ResolutionSelector {
        val builder = ResolutionSelector.Builder().setAspectRatioStrategy(AspectRatioStrategy.RATIO_4_3_FALLBACK_AUTO_STRATEGY)
        if (size != null) {
            builder.setResolutionStrategy(ResolutionStrategy(size, ResolutionStrategy.FALLBACK_RULE_CLOSEST_HIGHER_THEN_LOWER))
        }
        return builder.build()
    }

    private fun turn() {
        val rotation = preview.display?.rotation ?: return
        previewCase?.targetRotation = rotation
        analysisCase?.targetRotation = rotation
    }

    private fun analyse(image: ImageProxy, mirrored: Boolean) {
        image.use {
            val plane = image.planes[0]
            val bytes = plane.buffer
            bytes.rewind()
            if (frame.size != bytes.remaining()) frame = ByteArray(bytes.remaining())
            bytes.get(frame)
            detect(frame, image.height, image.width, plane.rowStride, fill = true, mirrored = mirrored)
        }
    }

    /** CameraX goes on trying where it can; the message goes when the camera has opened. */
    private fun onCameraState(state: CameraState) {
        val error = state.error
        if (error == null) {
            if (state.type == CameraState.Type.OPEN) onCameraOpen()
            return
        }
        cameraFailed = true
        val text =
            when (error.code) {
                CameraState.ERROR_CAMERA_IN_USE, CameraState.ERROR_MAX_CAMERAS_IN_USE -> getString(R.string.camera_busy)
                CameraState.ERROR_CAMERA_DISABLED -> getString(R.string.camera_disabled)
                CameraState.ERROR_DO_NOT_DISTURB_MODE_ENABLED -> getString(R.string.camera_do_not_disturb)
                else -> getString(R.string.camera_failed, getString(R.string.camera_error_code, error.code))
            }
        showPictureNotice(text, R.string.try_again) { bind() }
    }

    private fun onCameraOpen() {
        if (cameraFailed) showPictureNotice(null)
        cameraFailed = false
    }

    private companion object {
        const val FRONT = "front"
        const val ASKED = "asked"
    }
}
