package acwface.demo

import acwface.core.FormatException
import acwface.core.Incompatibility
import acwface.core.Manifest
import acwface.core.incompatibility
import acwface.core.readManifest
import android.content.res.AssetManager
import java.io.IOException
import java.security.MessageDigest

/** An artifact in the app's assets; [name] is its folder's. */
class Model(val name: String, val manifest: Manifest) {
    val asset = "${Models.FOLDER}/$name/${manifest.model.name}"
}

/** A folder that is no artifact, and why; shown in the list, so that nobody searches for it. */
class BrokenModel(val name: String, val reason: String)

/** What `make android-assets` has put into the app. */
class Models(private val assets: AssetManager) {
    /** Reads every `detector.json`, in the order of names. */
    fun read(): Pair<List<Model>, List<BrokenModel>> {
        val models = ArrayList<Model>()
        val broken = ArrayList<BrokenModel>()
        for (name in assets.list(FOLDER).orEmpty().sorted()) {
            if (assets.list("$FOLDER/$name").isNullOrEmpty()) continue // a file
            try {
                val text = assets.open("$FOLDER/$name/$MANIFEST").use { it.readBytes().decodeToString() }
                models.add(Model(name, readManifest(text)))
            } catch (error: IOException) {
                broken.add(BrokenModel(name, error.toString()))
            } catch (error: FormatException) {
                broken.add(BrokenModel(name, error.message.orEmpty()))
            }
        }
        return models to broken
    }

    /** Whether the model file is the one that was exported. Reads all of it. */
    fun isIntact(model: Model): Boolean {
        val digest = MessageDigest.getInstance("SHA-256")
        var size = 0L
        try {
            assets.open(model.asset).use { file ->
                val bytes = ByteArray(1 shl 16)
                while (true) {
                    val count = file.read(bytes)
                    if (count < 0) break
                    digest.update(bytes, 0, count)
                    size += count
                }
            }
        } catch (_: IOException) {
            return false
        }
        return size == model.manifest.model.sizeBytes && digest.digest().toHexadecimal() == model.manifest.model.sha256
    }

    private fun ByteArray.toHexadecimal() = joinToString("") { (it.toInt() and 255).toString(16).padStart(2, '0') }

    companion object {
        const val FOLDER = "models"
        private const val MANIFEST = "detector.json"

        fun incompatibility(model: Model): Incompatibility? =
            incompatibility(model.manifest, BuildConfig.LITERT_VERSION, KernelDelegate.libraries())
    }
}
