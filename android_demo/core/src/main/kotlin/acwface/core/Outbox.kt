package acwface.core

import java.io.File
import java.io.IOException

/** Where a benchmark leaves its record, or why there is none, for whoever has started it. A reader never sees half a file. */
class Outbox(private val folder: File) {
    /** `NAME.json`. */
    fun done(name: String, record: BenchmarkRecord): File = write("$name.json", record.toJson())

    /** `NAME.failed`: the reason in one line. */
    fun failed(name: String, reason: String): File = write("$name.failed", "${reason.split(Regex("\\s+")).joinToString(" ").trim()}\n")

    private fun write(name: String, text: String): File {
        if (name.startsWith(".") || '/' in name) throw IOException("no file name: $name") // a path, perhaps out of the folder
        if (!folder.isDirectory && !folder.mkdirs()) throw IOException("$folder")
        val temporary = File(folder, ".$name")
        temporary.writeText(text)
        val file = File(folder, name)
        if (!temporary.renameTo(file)) throw IOException("$file")
        return file
    }
}
