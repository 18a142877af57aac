package acwface.demo

import acwface.core.FolderShelf
import acwface.core.Incompatibility
import acwface.core.Model
import acwface.core.Shelf
import acwface.core.incompatibility
import acwface.core.readModels
import android.content.Context
import android.content.res.AssetManager
import java.io.File

/** What `make android-assets` has put into the app. */
class AssetShelf(private val assets: AssetManager) : Shelf {
    override fun folders() = assets.list(Models.FOLDER).orEmpty().filter { !assets.list("${Models.FOLDER}/$it").isNullOrEmpty() }

    override fun open(folder: String, file: String) = assets.open("${Models.FOLDER}/$folder/$file")

    override fun file(folder: String, file: String): File? = null
}

/** The artifacts that the app can run. */
object Models {
    const val FOLDER = "models"

    /** Those that were put on the phone later come before the app's own of the same name. */
    fun read(context: Context) =
        readModels(*listOfNotNull(context.getExternalFilesDir(FOLDER)?.let(::FolderShelf), AssetShelf(context.assets)).toTypedArray())

    fun incompatibility(model: Model): Incompatibility? =
        incompatibility(model.manifest, BuildConfig.LITERT_VERSION, KernelDelegate.libraries())
}

/** Of the model file, where it is in the app itself. */
val Model.asset get() = "${Models.FOLDER}/$name/${manifest.model.name}"
