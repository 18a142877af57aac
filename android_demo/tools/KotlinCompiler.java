import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.jetbrains.kotlin.cli.common.ExitCode;
import org.jetbrains.kotlin.cli.jvm.K2JVMCompiler;

/** Compiles several modules in one virtual machine, which is warm after the first: each argument is a file with a compiler argument a line. */
public final class KotlinCompiler {
    public static void main(String[] files) throws Exception {
        for (String file : files) {
            long start = System.nanoTime();
            List<String> arguments = Files.readAllLines(Path.of(file));
            if (new K2JVMCompiler().exec(System.err, arguments.toArray(new String[0])) != ExitCode.OK) System.exit(1);
            String name = Path.of(file).getFileName().toString().replace(".txt", "");
            System.out.printf("%s %.1f s%n", name, (System.nanoTime() - start) / 1e9);
        }
    }
}
