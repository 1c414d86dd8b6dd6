import ca.uhn.hl7v2.DefaultHapiContext;
import ca.uhn.hl7v2.HapiContext;
import ca.uhn.hl7v2.app.Connection;
import ca.uhn.hl7v2.model.Message;
import ca.uhn.hl7v2.parser.GenericModelClassFactory;
import ca.uhn.hl7v2.util.Terser;
import ca.uhn.hl7v2.validation.impl.ValidationContextFactory;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;

/** Sends the messages of standard input, each ended by FS, with HAPI's client; prints MSA-1 and MSA-2 of each answer. */
public final class HapiClient {
    public static void main(String[] arguments) throws Exception {
        HapiContext context = new DefaultHapiContext();
        context.setValidationContext(ValidationContextFactory.noValidation());
        context.setModelClassFactory(new GenericModelClassFactory());
        Connection connection = context.newClient(arguments[0], Integer.parseInt(arguments[1]), false);
        connection.getInitiator().setTimeout(20, TimeUnit.SECONDS);
        String all = new String(System.in.readAllBytes(), StandardCharsets.UTF_8);
        for (String text : all.split("\u001c")) {
            Message message = context.getGenericParser().parse(text);
            Terser answer = new Terser(connection.getInitiator().sendAndReceive(message));
            System.out.println(answer.get("/MSA-1") + " " + answer.get("/MSA-2"));
        }
        connection.close();
        context.close();
        System.exit(0);
    }
}
