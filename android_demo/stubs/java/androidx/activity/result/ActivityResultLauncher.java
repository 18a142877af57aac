// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.activity.result;

public abstract class ActivityResultLauncher<I> {
    public void launch(I input) {
        throw new UnsupportedOperationException();
    }
}
