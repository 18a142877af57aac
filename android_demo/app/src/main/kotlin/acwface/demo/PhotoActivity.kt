package acwface.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.widget.ImageView
import androidx.activity.result.contract.ActivityResultContracts
import androidx.annotation.RequiresApi
import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer

/** Faces in a photograph from the gallery. */
class PhotoActivity : DetectorActivity() {
    private lateinit var picture: ImageView
    private var uri: Uri? = null

    override val isContinuous = false

    private val chooser =
        registerForActivityResult(ActivityResultContracts.GetContent()) { chosen ->
            if (chosen != null) {
                uri = chosen
                load()
            } else if (uri == null) {
                finish()
            }
        }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        addButton(R.id.choose_photo) { chooser.launch(IMAGES) }
        uri = savedInstanceState?.getString(URI)?.let(Uri::parse)
        if (uri == null && savedInstanceState == null) chooser.launch(IMAGES)
    }

    override fun onPictureCreated() {
        picture = ImageView(this)
        picture.scaleType = ImageView.ScaleType.FIT_CENTER
        picture.contentDescription = getString(R.string.photograph)
        stage.addView(picture, 0)
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putString(URI, uri?.toString())
    }

    override fun onDetectorReady() = load()

    private fun load() {
        val chosen = uri ?: return
        inWorker {
            val bitmap =
                try {
                    decode(this, chosen)
                } catch (error: IOException) {
                    return@inWorker failed(error)
                } catch (error: SecurityException) { // access ended with the activity that was given it
                    return@inWorker failed(error)
                } catch (error: OutOfMemoryError) {
                    return@inWorker failed(error)
                }
            main.post {
                if (isDestroyed) return@post
                showPictureNotice(null)
                picture.setImageBitmap(bitmap)
            }
            val rgba = ByteBuffer.allocate(bitmap.rowBytes * bitmap.height)
            bitmap.copyPixelsToBuffer(rgba)
            overlay.clear()
            detect(rgba.array(), bitmap.height, bitmap.width, bitmap.rowBytes, fill = false, mirrored = false)
        }
    }

    private fun failed(error: Throwable) {
        main.post { showPictureNotice(getString(R.string.photo_failed, error.message ?: error.toString())) }
    }

    private companion object {
        const val IMAGES = "image/*"
        const val URI = "uri"
        const val MAX_SIDE = 4096

        /** Upright, in bytes red, green, blue, alpha, no side longer than [MAX_SIDE]. */
        fun decode(context: Context, uri: Uri): Bitmap {
            val bitmap = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) decodeModern(context, uri) else decodeOld(context, uri)
            if (bitmap.config == Bitmap.Config.ARGB_8888) return bitmap
            return bitmap.copy(Bitmap.Config.ARGB_8888, false) ?: throw IOException("no memory")
        }

        @RequiresApi(Build.VERSION_CODES.P)
        fun decodeModern(context: Context, uri: Uri): Bitmap =
            ImageDecoder.decodeBitmap(ImageDecoder.createSource(context.contentResolver, uri)) { decoder, info, _ ->
                decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE // pixels are to be read
                val longest = maxOf(info.size.width, info.size.height)
                if (longest > MAX_SIDE) decoder.setTargetSampleSize((longest + MAX_SIDE - 1) / MAX_SIDE)
            }

        /** Before Android 9 nothing turns photographs by itself. */
        fun decodeOld(context: Context, uri: Uri): Bitmap {
            val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
            open(context, uri) { BitmapFactory.decodeStream(it, null, bounds) }
            val longest = maxOf(bounds.outWidth, bounds.outHeight)
            val options = BitmapFactory.Options().apply { inSampleSize = (longest + MAX_SIDE - 1) / MAX_SIDE }
            val bitmap = open(context, uri) { BitmapFactory.decodeStream(it, null, options) } ?: throw IOException("not an image")
            val exif = open(context, uri) { ExifInterface(it) }
            val orientation = exif.getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
            val upright = upright(orientation)
            return if (upright.isIdentity) bitmap else Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, upright, true)
        }

        private fun <T> open(context: Context, uri: Uri, read: (InputStream) -> T): T =
            (context.contentResolver.openInputStream(uri) ?: throw IOException("no such photograph")).use(read)

        private fun upright(orientation: Int) =
            Matrix().apply {
                when (orientation) {
                    ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> setScale(-1f, 1f)
                    ExifInterface.ORIENTATION_ROTATE_180 -> setRotate(180f)
                    ExifInterface.ORIENTATION_FLIP_VERTICAL -> setScale(1f, -1f)
                    ExifInterface.ORIENTATION_TRANSPOSE -> {
                        setRotate(90f)
                        postScale(-1f, 1f)
                    }
                    ExifInterface.ORIENTATION_ROTATE_90 -> setRotate(90f)
                    ExifInterface.ORIENTATION_TRANSVERSE -> {
                        setRotate(-90f)
                        postScale(-1f, 1f)
                    }
                    ExifInterface.ORIENTATION_ROTATE_270 -> setRotate(-90f)
                }
            }
    }
}
