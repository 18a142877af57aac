package acwface.core

import org.junit.Rule
import org.junit.rules.TemporaryFolder
import java.io.File
import java.io.IOException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

/** Artifacts that were put on the phone, and what a benchmark leaves there. */
class FilesTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val manifest = Golden.read("manifest.json").cases.first()["text"].string
    private val bytes = "a model".toByteArray() // what the manifest's digest is of

    private fun put(parent: File, name: String, manifest: String? = this.manifest, bytes: ByteArray? = this.bytes) {
        val folder = File(parent, name).apply { mkdirs() }
        manifest?.let { File(folder, "detector.json").writeText(it) }
        bytes?.let { File(folder, "model.tflite").writeBytes(it) }
    }

    @Test
    fun artifactsAreFoundByTheNamesOfTheirFolders() {
        val parent = temporary.root
        put(parent, "b")
        put(parent, "a")
        put(parent, ".c") // still being copied
        put(parent, "no manifest", manifest = null)
        put(parent, "damaged", manifest = manifest.dropLast(9))
        File(parent, "file").writeText("")
        val (models, broken) = readModels(FolderShelf(parent))
        assertEquals(listOf("a", "b"), models.map { it.name })
        assertEquals(File(parent, "a/model.tflite"), models.first().file)
        assertEquals(listOf("damaged", "no manifest"), broken.map { it.name })
        assertTrue(broken.all { it.reason.isNotEmpty() })
        assertEquals(0, readModels(FolderShelf(File(parent, "nowhere"))).first.size)
    }

    @Test
    fun theFirstOfTwoFoldersOfOneNameCounts() {
        val (pushed, own) = listOf("pushed", "own").map { File(temporary.root, it) }
        put(pushed, "a")
        put(own, "a", bytes = null)
        put(own, "b")
        val (models, _) = readModels(FolderShelf(pushed), FolderShelf(own))
        assertEquals(listOf(File(pushed, "a/model.tflite"), File(own, "b/model.tflite")), models.map { it.file })
    }

    @Test
    fun anotherFileThanTheExportedOneIsNoticed() {
        val parent = temporary.root
        put(parent, "same")
        put(parent, "longer", bytes = bytes + 0)
        put(parent, "other", bytes = bytes.reversedArray())
        put(parent, "missing", bytes = null)
        val models = readModels(FolderShelf(parent)).first.associateBy { it.name }
        assertTrue(isIntact(models.getValue("same")))
        for (name in listOf("longer", "other", "missing")) assertFalse(isIntact(models.getValue(name)), name)
    }

    @Test
    fun aBenchmarkLeavesItsRecordOrTheReasonInOneLine() {
        val folder = File(temporary.root, "benchmark")
        val times = Latency.of(doubleArrayOf(1.0), 0)
        val record = BenchmarkRecord("a", readManifest(manifest), "2.3.0", "phone", "soc", 1, 1.0, times, 480, 640, 1)
        assertEquals(record.toJson(), Outbox(folder).done("run 1", record).readText())
        assertEquals("LiteRT: no\n", Outbox(folder).failed("run-2", "LiteRT:\n\tno \n").readText())
        assertEquals(setOf("run 1.json", "run-2.failed"), folder.list().orEmpty().toSet())
        for (name in listOf("../out", ".hidden", "a/b")) assertFailsWith<IOException> { Outbox(folder).failed(name, "no") }
    }
}
