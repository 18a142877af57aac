package acwface.core

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest

/** Where artifacts lie, each in a folder of its own. */
interface Shelf {
    fun folders(): List<String>

    /** @throws IOException there is no such file, or it cannot be read. */
    fun open(folder: String, file: String): InputStream

    /** The same as a file of the phone; null of what is not one. */
    fun file(folder: String, file: String): File?
}

/** Artifacts that have been put on the phone beside the app: `python -m runtime_bench app` does. */
class FolderShelf(private val parent: File) : Shelf {
    /** Without those that are still being copied: their names begin with a dot. */
    override fun folders() = parent.listFiles().orEmpty().filter { it.isDirectory && !it.name.startsWith(".") }.map { it.name }

    override fun open(folder: String, file: String) = file(folder, file).inputStream()

    override fun file(folder: String, file: String) = File(File(parent, folder), file)
}

/** An artifact; [name] is its folder's. */
class Model(val name: String, val manifest: Manifest, val shelf: Shelf) {
    /** Null where the model file is in the app itself. */
    val file: File? get() = shelf.file(name, manifest.model.name)
}

/** A folder that is no artifact, and why; shown in the list, so that nobody searches for it. */
class BrokenModel(val name: String, val reason: String)

/** Reads every `detector.json`, in the order of names; of two folders of one name, that on the first of [shelves]. */
fun readModels(vararg shelves: Shelf): Pair<List<Model>, List<BrokenModel>> {
    val models = ArrayList<Model>()
    val broken = ArrayList<BrokenModel>()
    val folders = shelves.flatMap { shelf -> shelf.folders().map { it to shelf } }.distinctBy { it.first }.sortedBy { it.first }
    for ((name, shelf) in folders) {
        try {
            val text = shelf.open(name, MANIFEST).use { it.readBytes().decodeToString() }
            models.add(Model(name, readManifest(text), shelf))
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
        model.shelf.open(model.name, model.manifest.model.name).use { file ->
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

private const val MANIFEST = "detector.json"
